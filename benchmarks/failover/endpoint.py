"""A model server that can be told to fail: in the loop of a test, or as a process of its own.

`python -m benchmarks.failover.endpoint PORT NAME FILE` listens, appends the id of each request that
it was sent to FILE (a write each, so that none is lost when the process is killed), and takes its
mode from lines on standard input. It names itself (`x-endpoint`) and the request (`x-id`) in every
answer, so that who answered what can be counted.
"""

import asyncio
import os
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from time import perf_counter
from typing import Any, Final, cast

import uvloop

MODES: Final = frozenset(
    {
        "ok",  # answers at once
        "slow",  # answers after `argument` seconds
        "serial",  # answers one request at a time, `argument` a second, in their order
        "hang",  # takes requests, answers none
        "errors",  # answers the share `argument` of requests with 500
        "garbage",  # answers what is not HTTP
        "reset-head",  # resets the connection amid the head
        "reset-body",  # resets the connection amid the body
        "cut-chunks",  # closes the connection amid a chunked body
        "drip",  # sends its answer a byte at a time, `argument` seconds apart
        "closing",  # answers, then closes although it promised to keep the connection
        "stale",  # answers on a fresh connection, resets a used one when it has read a request
    }
)
HEALTH: Final = b"/health"
"""Answered 200 whatever the mode, but for `hang` and `garbage`; not noted."""
EVENTS: Final = b"/events/"
"""`/events/N`: so many server-sent events, one each tenth of a second."""
EVENT_EVERY_S: Final = 0.1
_SWITCH: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
"""The answer to an upgrade with the key of RFC 6455 section 1.3; from then on bytes come back."""
_LATE_S: Final = 0.005
_GARBAGE: Final = b"\x16\x03\x01\x02garbage\r\nnot: http\r\n\r\n" * 3


class Endpoint:
    """A server on `host`. `port` 0 takes a free one, kept from then on."""

    def __init__(self, name: str, port: int = 0, host: str = "127.0.0.1") -> None:
        self.name = name
        self.host = host
        self.port = port
        self.mode = "ok"
        self.argument = 0.0
        self.delivered: Counter[str] = Counter()
        """Requests by `x-id`."""
        self.open: set[_Connection] = set()
        self.at_once = self.most_at_once = 0
        """Requests that `slow` works on, and the most there were."""
        self.note: Callable[[str], object] = lambda name: None
        self.turn = asyncio.Lock()
        self.busy_until_s = 0.0
        self._errors = 0.0
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def behave(self, mode: str, argument: float = 0.0) -> None:
        """Do that from the next request on."""
        if mode not in MODES:
            raise ValueError(f"no mode {mode!r}, there are: {', '.join(sorted(MODES))}")
        self.mode, self.argument = mode, argument

    async def up(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), self.host, self.port, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """As when the process dies: nobody listens, every connection is reset."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        while self.open:
            for connection in list(self.open):
                connection.reset()
            await asyncio.sleep(0.001)
        await server.wait_closed()

    @property
    def is_up(self) -> bool:
        return self._server is not None

    def is_error(self) -> bool:
        """Whether this is one of the share `argument`, evenly spread."""
        self._errors += self.argument
        if self._errors < 1:
            return False
        self._errors -= 1
        return True


class _Connection(asyncio.Protocol):
    def __init__(self, endpoint: Endpoint) -> None:
        self.transport = cast(asyncio.Transport, None)
        self._endpoint = endpoint
        self._buffer = b""
        self._served = 0
        self._is_upgraded = False
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._endpoint.open.add(self)
        if not self._endpoint.is_up:  # accepted amid the end
            self.reset()

    def connection_lost(self, exc: Exception | None) -> None:
        self._endpoint.open.discard(self)
        if self._task is not None:
            self._task.cancel()

    def reset(self) -> None:
        sock = self.transport.get_extra_info("socket")
        if sock is not None and not self.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._is_upgraded:
            self.transport.write(data)
            return
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        lines = head.lower().split(b"\r\n")
        fields = dict(line.split(b": ", 1) for line in lines[1:] if b": " in line)
        length = int(fields.get(b"content-length", b"0"))
        if len(body) < length:
            return
        self._buffer = body[length:]
        path = lines[0].split(b" ")[1]
        name = fields.get(b"x-id", b"").decode().upper()
        if fields.get(b"upgrade") == b"websocket":
            self._upgrade(name)
        else:
            self._begin(path, name)

    def _upgrade(self, name: str) -> None:
        self._endpoint.delivered[name] += 1
        self._endpoint.note(name)
        self._is_upgraded = True
        self.transport.write(_SWITCH)

    def _begin(self, path: bytes, name: str) -> None:
        endpoint = self._endpoint
        self._served += 1
        if path == HEALTH:
            if endpoint.mode == "garbage":
                self.transport.write(_GARBAGE)
            elif endpoint.mode != "hang":
                self._answer(200, name)
            return
        endpoint.delivered[name] += 1
        endpoint.note(name)
        if path.startswith(EVENTS):
            self._later(self._events(int(path.removeprefix(EVENTS))))
        else:
            self._misbehave(name)

    def _misbehave(self, name: str) -> None:
        endpoint = self._endpoint
        match endpoint.mode:
            case "hang":
                pass
            case "errors":
                self._answer(500 if endpoint.is_error() else 200, name)
            case "slow":
                self._later(self._answer_after(endpoint.argument, name))
            case "serial":
                self._later(self._serial(name))
            case "garbage":
                self.transport.write(_GARBAGE)
            case "reset-head":
                self._reset_after(b"HTTP/1.1 200 OK\r\ncontent-le")
            case "reset-body":
                self._reset_after(_head(200, endpoint.name, name, b"content-length: 20") + b"half")
            case "cut-chunks":
                head = _head(200, endpoint.name, name, b"transfer-encoding: chunked")
                self.transport.write(head + b"4\r\nhalf\r\n")
                self.transport.close()
            case "drip":
                self._later(self._drip(name))
            case "stale" if self._served > 1:
                self.reset()
            case _:
                self._answer(200, name)
                if endpoint.mode == "closing":
                    self.transport.close()

    def _answer(self, status: int, name: str) -> None:
        self.transport.write(_answer(status, self._endpoint.name, name))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = asyncio.get_running_loop().create_task(work)

    def _reset_after(self, data: bytes) -> None:
        """Reset when the proxy has had time to read `data`: a reset may overtake it."""
        self.transport.write(data)
        asyncio.get_running_loop().call_later(0.005, self.reset)

    async def _answer_after(self, seconds: float, name: str) -> None:
        endpoint = self._endpoint
        endpoint.at_once += 1
        endpoint.most_at_once = max(endpoint.most_at_once, endpoint.at_once)
        try:
            await asyncio.sleep(seconds)
            self._answer(200, name)
        finally:
            endpoint.at_once -= 1

    async def _serial(self, name: str) -> None:
        """Wait for those before, then take the time of one; a client that left takes none."""
        endpoint = self._endpoint
        async with endpoint.turn:
            now_s = perf_counter()
            # timers are late by a millisecond: what was lost is made up for
            start_s = max(now_s - _LATE_S, endpoint.busy_until_s)
            endpoint.busy_until_s = start_s + 1 / endpoint.argument
            await asyncio.sleep(endpoint.busy_until_s - now_s)
        self._answer(200, name)

    async def _drip(self, name: str) -> None:
        for byte in _answer(200, self._endpoint.name, name):
            self.transport.write(bytes((byte,)))
            await asyncio.sleep(self._endpoint.argument)

    async def _events(self, count: int) -> None:
        name = self._endpoint.name
        self.transport.write(_head(200, name, "", b"transfer-encoding: chunked"))
        for number in range(count):
            event = b"data: %d\n\n" % number
            self.transport.write(b"%x\r\n%b\r\n" % (len(event), event))
            await asyncio.sleep(EVENT_EVERY_S)
        self.transport.write(b"0\r\n\r\n")


def _head(status: int, endpoint: str, name: str, framing: bytes) -> bytes:
    reason = b"OK" if status == 200 else b"Internal Server Error"
    own = f"x-endpoint: {endpoint}\r\nx-id: {name}\r\n".encode()
    return b"HTTP/1.1 %d %b\r\n%b%b\r\n\r\n" % (status, reason, own, framing)


def _answer(status: int, endpoint: str, name: str) -> bytes:
    body = b'{"outputs":[0.9132,0.0671,0.0197]}'
    return _head(status, endpoint, name, b"content-length: %d" % len(body)) + body


async def _serve(port: int, name: str, file: Path) -> None:
    endpoint = Endpoint(name, port)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    endpoint.note = lambda request: os.write(descriptor, request.encode() + b"\n")
    await endpoint.up()
    ended = asyncio.Event()

    def read() -> None:
        line = sys.stdin.readline()
        if not line:
            ended.set()
            return
        mode, _, argument = line.strip().partition(" ")
        endpoint.behave(mode, float(argument or 0))

    asyncio.get_running_loop().add_reader(sys.stdin, read)
    await ended.wait()
    await endpoint.down()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
