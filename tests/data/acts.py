"""What an endpoint does with a request it got, one after the other."""

import asyncio
from collections.abc import Awaitable, Callable

from tests.data.harness import Lab, Origin, Wire, response

Act = Callable[[Wire], Awaitable[None]]


def answer(body: bytes = b"ok", *lines: bytes, status: bytes = b"200 OK") -> Act:
    """Answer in one piece."""

    async def act(wire: Wire) -> None:
        wire.send(response(body, *lines, status=status))

    return act


def say(data: bytes) -> Act:
    """Send just this."""

    async def act(wire: Wire) -> None:
        wire.send(data)

    return act


class Held:
    """An act that waits to be let go; `begun` is sent before."""

    def __init__(self, then: Act, begun: bytes = b"") -> None:
        self.go = asyncio.Event()
        self._then = then
        self._begun = begun

    async def __call__(self, wire: Wire) -> None:
        wire.send(self._begun)
        await self.go.wait()
        await self._then(wire)


async def unavailable(wire: Wire) -> None:
    """An orderly 503, whole."""
    wire.send(response(b"no", status=b"503 Service Unavailable"))


async def endless_503(wire: Wire) -> None:
    """A 503 whose body does not end."""
    wire.send(b"HTTP/1.1 503 Service Unavailable\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n")


async def reset(wire: Wire) -> None:
    wire.reset()


async def close(wire: Wire) -> None:
    wire.writer.close()


async def half_a_head(wire: Wire) -> None:
    """Begin to answer, then go."""
    wire.send(b"HTTP/1.1 2")
    await wire.drained()
    wire.reset()


async def hang(wire: Wire) -> None:
    """Never say a word; see when the other side is gone."""
    while True:
        await wire.fill()


async def acting(lab: Lab, *acts: Act) -> Origin:
    """An endpoint that does the next of `acts` with each whole request, the last one ever after."""

    async def script(wire: Wire) -> None:
        while True:
            await origin.next_request(wire)
            await acts[min(len(origin.requests), len(acts)) - 1](wire)

    origin = await lab.origin(script)
    return origin
