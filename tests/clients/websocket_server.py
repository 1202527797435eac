"""A server on `websockets`, for clients that talk to it directly and through the router."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from tests.clients.model_server import in_thread

MAX_BYTES = 4 * 1024 * 1024


class WebSocketServer:
    """A running server.

    | last segment | what it does |
    |---|---|
    | `echo` | says every message back |
    | `pieces` | says every message back in fragments of 1000 characters or bytes |
    | `close?CODE` | closes with CODE and a reason |
    | `ping` | answers every message with the payload of the pong that its ping brought |
    | `drop` | breaks the connection off after a message |
    | `told` | tells how earlier connections to `echo` ended |
    | `400`, `403` | refuses the handshake |
    """

    def __init__(self) -> None:
        self.url = ""
        self.endings: list[tuple[int, str]] = []
        """Code and reason of closed connections to `echo`, in the order of their end."""


async def _pieces(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send([message[i : i + 1000] for i in range(0, len(message), 1000)])


async def _ping(connection: ServerConnection) -> None:
    async for message in connection:
        await (await connection.ping(message))
        await connection.send(f"pong for {message!r}")


async def _handle(server: WebSocketServer, connection: ServerConnection) -> None:
    assert connection.request is not None
    path, _, code = connection.request.path.rpartition("/")[2].partition("?")
    try:
        if path == "pieces":
            await _pieces(connection)
        elif path == "ping":
            await _ping(connection)
        elif path == "drop":
            await connection.recv()
            connection.transport.abort()
        elif path == "close":
            await connection.close(int(code), f"because of {code}")
        else:
            async for message in connection:
                await connection.send(message)
    except ConnectionClosed:
        pass
    finally:
        await connection.wait_closed()
        if path == "echo":
            server.endings.append((connection.close_code or 0, connection.close_reason or ""))


def _refuse(connection: ServerConnection, request: Request) -> Response | None:
    last = request.path.rpartition("/")[2]
    if last in ("400", "403"):
        return connection.respond(HTTPStatus(int(last)), f"refused with {last}\n")
    return None


def _select(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return next(
        (name for name in map(Subprotocol, ("v2.test", "v1.test")) if name in offered), None
    )


@contextmanager
def websocket_server() -> Iterator[WebSocketServer]:
    """A running server."""
    server = WebSocketServer()

    async def run(ready: threading.Event, ended: asyncio.Event) -> None:
        async with serve(
            lambda connection: _handle(server, connection),
            "127.0.0.1",
            0,
            max_size=MAX_BYTES,
            process_request=_refuse,
            select_subprotocol=_select,
        ) as running:
            host, port = next(iter(running.sockets)).getsockname()[:2]
            server.url = f"http://{host}:{port}"
            ready.set()
            await ended.wait()

    with in_thread(run):
        yield server
