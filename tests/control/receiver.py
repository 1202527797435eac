"""A server on a free port that keeps what is posted to it, and answers as it is told."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Posted:
    """One POST."""

    path: str
    headers: dict[str, str]
    body: bytes


Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Receiver:
    """What came, and what is answered: `answers` in turn, then 200 without a body."""

    url: str = ""
    posted: list[Posted] = field(default_factory=list)
    answers: list[web.Response | Answering] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.posted.append(Posted(request.path, headers, await request.read()))
        answer = self.answers.pop(0) if self.answers else web.Response()
        return answer if isinstance(answer, web.Response) else await answer(request)


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver that runs as long as the context."""
    here = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", here.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        here.url = f"http://{host}:{port}"
        yield here
    finally:
        await runner.cleanup()
