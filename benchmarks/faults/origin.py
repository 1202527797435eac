"""A model server that misbehaves on request, in the loop of the measuring program.

Owns what it saw: which requests were delivered, which connections are open, when they ended, and
how many bytes have left. The first segment of the path says what to do, the next how much.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter
from typing import Final, cast

PIECE: Final = bytes(256 * 1024)
"""What long bodies are made of."""
EVENT_EVERY_S: Final = 0.005


class Origin:
    """A server at `port`; 0 until it was started.

    | path | what it does |
    |---|---|
    | `/small` | answers `ok` |
    | `/closing` | answers `ok`, then closes although it promised to keep the connection |
    | `/stale` | answers `ok` on a fresh connection, drops a used one on its next request |
    | `/hang` | never answers |
    | `/bytes/N` | answers N bytes, as fast as they are taken |
    | `/cut` | answers half of a body, then breaks off |
    | `/sink` | takes the body, then answers `ok`; never to a chunked one |
    | `/stalled` | takes nothing of the body |
    | `/events/N` | N server-sent events, each with the time at which it was sent |
    | `/switch` | answers 101 and says nothing more |
    """

    def __init__(self) -> None:
        self.port = 0
        self.delivered: Counter[bytes] = Counter()
        """By the value of `x-id`."""
        self.open: set[OriginConnection] = set()
        self.most_open = 0
        self.ended_s: dict[bytes, float] = {}
        """`x-id` of a request -> when its connection ended unanswered (`perf_counter`)."""
        self.sent_bytes = 0
        """Of the last `/bytes`."""
        self._servers: list[asyncio.Server] = []

    @property
    def busy(self) -> int:
        """Connections on which a request waits for its answer."""
        return sum(connection.current is not None for connection in self.open)

    async def start(self, port: int = 0, hosts: Sequence[str] = ("127.0.0.1",)) -> None:
        """Listen on `port` of every host; 0 takes a free one of the first."""
        self.port = port
        for host in hosts:
            server = await asyncio.get_running_loop().create_server(
                lambda: OriginConnection(self), host, self.port, backlog=4096
            )
            self._servers.append(server)
            self.port = server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything."""
        for server in self._servers:
            server.close()
        for connection in list(self.open):
            connection.transport.abort()
        for server in self._servers:
            await server.wait_closed()


class OriginConnection(asyncio.Protocol):
    """One connection from the router."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.transport = cast(asyncio.Transport, None)
        self.current: bytes | None = None
        """`x-id` of the request in progress."""
        self._buffer = b""
        self._body_left = 0
        self._served = 0
        self._can_write = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._can_write.set()
        self.origin.open.add(self)
        self.origin.most_open = max(self.origin.most_open, len(self.origin.open))

    def connection_lost(self, exc: Exception | None) -> None:
        self.origin.open.discard(self)
        if self.current is not None:
            self.origin.ended_s[self.current] = perf_counter()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    def data_received(self, data: bytes) -> None:
        if self._body_left:
            self._body_left -= len(data)
            if self._body_left <= 0:
                self._answer(b"ok")
            return
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if end:
            self._buffer = b""
            self._begin(head, rest)

    def _begin(self, head: bytes, rest: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        fields = {
            name.lower(): value.strip() for name, _, value in (x.partition(b":") for x in lines)
        }
        name, _, argument = first.split(b" ")[1].lstrip(b"/").partition(b"/")
        self.current = fields.get(b"x-id", b"")
        self.origin.delivered[self.current] += 1
        self._served += 1
        self._body_left = max(0, int(fields.get(b"content-length", b"0")) - len(rest))
        if name == b"stale" and self._served > 1:
            self.transport.abort()
        elif name == b"stalled":
            self.transport.pause_reading()
        elif name == b"switch":
            self.transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n"
                b"upgrade: websocket\r\n\r\n"
            )
        elif name == b"cut":
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 20000\r\n\r\n" + bytes(10000))
            self.transport.close()
        elif name in (b"bytes", b"events"):
            work = self._bytes if name == b"bytes" else self._events
            self._task = asyncio.get_running_loop().create_task(work(int(argument)))
        elif name != b"hang" and not self._body_left and b"transfer-encoding" not in fields:
            self._answer(b"ok")
            if name == b"closing":
                self.transport.close()

    def _answer(self, body: bytes) -> None:
        self.current = None
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    async def _bytes(self, count: int) -> None:
        origin = self.origin
        origin.sent_bytes = 0
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % count)
        with suppress(asyncio.CancelledError):  # the router left: nobody waits for this task
            while count and not self.transport.is_closing():
                await self._can_write.wait()
                piece = PIECE[:count]
                self.transport.write(piece)
                count -= len(piece)
                origin.sent_bytes += len(piece)
            self.current = None

    def unsent_bytes(self) -> int:
        """Written here, still in this process."""
        return self.transport.get_write_buffer_size()

    async def _events(self, count: int) -> None:
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        with suppress(asyncio.CancelledError):
            for _ in range(count):
                await asyncio.sleep(EVENT_EVERY_S)
                event = b"data: %.6f\n\n" % perf_counter()
                self.transport.write(b"%x\r\n%b\r\n" % (len(event), event))
            self.transport.write(b"0\r\n\r\n")
            self.current = None
