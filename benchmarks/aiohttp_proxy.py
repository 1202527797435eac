"""The proxy one writes with aiohttp alone: its server, its client, uvloop. A peer, not a product.

Does what the other peers do: a sticky 10 % split by `x-user-id`, kept-alive connections to both
versions, bodies relayed whole (they are small here, which favours it), no access log, requests
and seconds counted.
"""

import argparse
import hashlib
import platform
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import version

import uvloop
from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "te", "upgrade"})


def _handler(
    session: ClientSession, stable: str, canary: str, counts: Counter[str]
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def relay(request: web.Request) -> web.StreamResponse:
        started_s = time.perf_counter()
        user = request.headers.get("x-user-id", "").encode()
        bucket = int.from_bytes(hashlib.blake2b(user, digest_size=8).digest(), "big") % 100
        origin = canary if bucket < 10 else stable
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
        headers["x-forwarded-for"] = request.remote or ""
        async with session.request(
            request.method, origin + request.raw_path, headers=headers, data=await request.read()
        ) as answer:
            body = await answer.read()
        counts["requests"] += 1
        counts["us"] += int((time.perf_counter() - started_s) * 1e6)
        kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP}
        return web.Response(status=answer.status, headers=kept, body=body)

    return relay


def _application(stable: str, canary: str) -> web.Application:
    app = web.Application()

    async def with_session(app: web.Application) -> AsyncIterator[None]:
        connector = TCPConnector(limit=0)
        async with ClientSession(
            connector=connector, cookie_jar=DummyCookieJar(), auto_decompress=False
        ) as session:
            app.router.add_route("*", "/{path:.*}", _handler(session, stable, canary, Counter()))
            yield

    app.cleanup_ctx.append(with_session)
    return app


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--version", action="store_true")
    parser.add_argument("ports", type=int, nargs="*", help="listen, stable, canary")
    args = parser.parse_args()
    if args.version:
        names = ("aiohttp", "uvloop")
        print(*(f"{name} {version(name)}" for name in names), f"Python {platform.python_version()}")
        return
    listen, stable, canary = args.ports
    uvloop.install()
    app = _application(f"http://127.0.0.1:{stable}", f"http://127.0.0.1:{canary}")
    web.run_app(app, host="127.0.0.1", port=listen, access_log=None, print=None)


if __name__ == "__main__":
    main()
