"""The origin of the workloads that relay: `python -m benchmarks.origin PORT ...`.

1. `/upload` answers when the whole body is there; `/download` sends 1 MiB; `/ready` says 200.
2. `/sse?first=NS&every=NS&count=N` sends N events, each when it is due (`time.monotonic_ns`), one
   chunk each. The client says when, so that all proxies meet one schedule.
3. `/websocket` echoes frames.
4. One thread, and sockets without a library's buffers: an origin that costs little leaves the
   load core to the load. A stream whose proxy takes no more bytes ends the program, which ends
   the run: at these rates that proxy has stalled.
"""

import argparse
import base64
import hashlib
import heapq
import re
import socket
import time
from functools import partial
from typing import Final
from urllib.parse import parse_qsl

from benchmarks.errors import BenchmarkError
from benchmarks.frames import MASKED_FRAME_BYTES, Stamp, chunk, echo, event
from benchmarks.poller import Poller, exact_timers

_READ_BYTES: Final = 256 * 1024
_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
_BODY_BYTES: Final = 1024 * 1024
_DOWNLOAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n"
    % _BODY_BYTES
) + b"x" * _BODY_BYTES
_SSE_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_KEY: Final = re.compile(rb"\r\nsec-websocket-key: *([^\r]+)", re.IGNORECASE)
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_LAST_CHUNK: Final = b"0\r\n\r\n"


class _Stream:
    """One stream of events: which is next, and when. Ordered by when it is due."""

    def __init__(self, connection: "_Connection", first_ns: int, every_ns: int, count: int) -> None:
        self._connection = connection
        self._every_ns = every_ns
        self._count = count
        self._number = 0
        self.due_ns = first_ns

    def __lt__(self, other: "_Stream") -> bool:
        return self.due_ns < other.due_ns

    def send(self) -> bool:
        """Send the event that is due. False when no other follows."""
        stamp = Stamp(self._number, self.due_ns, time.monotonic_ns())
        self._number += 1
        self.due_ns += self._every_ns
        is_last = self._number == self._count
        self._connection.send_whole(chunk(event(stamp)) + (_LAST_CHUNK if is_last else b""))
        return not is_last and self._connection.is_open


class _Connection:
    """One connection: requests one after the other, or, once upgraded, frames."""

    def __init__(self, sock: socket.socket, origin: "Origin") -> None:
        self._sock = sock
        self._origin = origin
        self._received = bytearray()
        self._unsent = memoryview(b"")
        self._body_left = 0
        self._is_upgraded = False
        self.is_open = True

    def on_ready(self) -> None:
        try:
            if self._unsent:
                self._send(self._unsent)
            received = self._sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self.is_open = False
            self._origin.forget(self._sock)
        elif self._body_left:
            self._on_body(len(received))
        else:
            self._received += received
            self._on_bytes()

    def send_whole(self, content: bytes) -> None:
        """Send what the socket has to have room for.

        Raises:
            BenchmarkError: it has not. A connection that is gone is no error here: who waits
                for what it was to bring has seen it.
        """
        try:
            sent = self._sock.send(content)
        except BlockingIOError:
            sent = 0
        except OSError:
            return
        if sent != len(content):
            raise BenchmarkError(f"a stream took {sent} of {len(content)} bytes: it is stalled")

    def _on_bytes(self) -> None:
        if self._is_upgraded:
            while len(self._received) >= MASKED_FRAME_BYTES:
                frame = bytes(self._received[:MASKED_FRAME_BYTES])
                del self._received[:MASKED_FRAME_BYTES]
                self.send_whole(echo(frame))
        elif (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._received[:end])
            rest = len(self._received) - end - 4
            if head.startswith(b"POST /upload"):
                self._received.clear()
                self._start_body(head, rest)
            else:
                del self._received[: end + 4]
                self._answer(head)

    def _start_body(self, head: bytes, already: int) -> None:
        length = _LENGTH.search(head)
        if length is None or _CHUNKED.search(head):
            raise BenchmarkError(f"expected an upload with a content-length, found {head!r}")
        self._body_left = int(length[1])
        self._on_body(already)

    def _on_body(self, count: int) -> None:
        self._body_left -= count
        if self._body_left < 0:
            raise BenchmarkError(f"found {-self._body_left} bytes after the body")
        if not self._body_left:
            self._send(memoryview(_OK))

    def _answer(self, head: bytes) -> None:
        path, _, query = head.split(b" ", 2)[1].partition(b"?")
        match path:
            case b"/ready":
                self._send(memoryview(_OK))
            case b"/download":
                self._send(memoryview(_DOWNLOAD))
            case b"/sse":
                wanted = {name: int(value) for name, value in parse_qsl(query.decode())}
                self.send_whole(_SSE_HEAD)
                stream = _Stream(self, wanted["first"], wanted["every"], wanted["count"])
                self._origin.start(stream)
            case b"/websocket":
                self._is_upgraded = True
                self.send_whole(_accept(head))
            case _:
                raise BenchmarkError(f"no such path: {path!r}")

    def _send(self, content: memoryview) -> None:
        had_unsent = bool(self._unsent)
        try:
            self._unsent = content[self._sock.send(content) :]
        except BlockingIOError:
            self._unsent = content
        except OSError:
            self._unsent = memoryview(b"")  # gone; to read from it will say so
        if had_unsent != bool(self._unsent):
            self._origin.poller.want_write(self._sock, bool(self._unsent))


class Origin:
    """The server: its connections, and the streams that are due."""

    def __init__(self, listeners: list[socket.socket]) -> None:
        self.poller = Poller()
        self._due: list[_Stream] = []
        self._clients: set[socket.socket] = set()
        for listener in listeners:
            listener.setblocking(False)
            self.poller.add(listener, partial(self._accept, listener))

    def serve(self) -> None:
        """Serve for ever.

        Raises:
            BenchmarkError: a proxy sent what it should not, or takes nothing any more.
        """
        while True:
            self.step(60.0)

    def step(self, wait_s: float) -> None:
        """Send what is due, and wait up to `wait_s` for the next."""
        now_ns = time.monotonic_ns()
        while self._due and self._due[0].due_ns <= now_ns:
            stream = heapq.heappop(self._due)
            if stream.send():
                heapq.heappush(self._due, stream)
        until_ns = now_ns + int(wait_s * 1e9)
        self.poller.poll(min(self._due[0].due_ns, until_ns) if self._due else until_ns)

    def start(self, stream: _Stream) -> None:
        heapq.heappush(self._due, stream)

    def forget(self, sock: socket.socket) -> None:
        self.poller.remove(sock)
        self._clients.discard(sock)
        sock.close()

    def close(self) -> None:
        """Close every connection; the listeners are the caller's."""
        for sock in self._clients:
            sock.close()
        self.poller.close()

    def _accept(self, listener: socket.socket) -> None:
        sock, _ = listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._clients.add(sock)
        self.poller.add(sock, _Connection(sock, self).on_ready)


def _accept(head: bytes) -> bytes:
    key = _KEY.search(head)
    if key is None:
        raise BenchmarkError(f"expected a websocket handshake, found {head!r}")
    # the hash that RFC 6455 section 4.2.2 demands; it protects nothing
    digest = hashlib.sha1(key[1].strip() + _GUID, usedforsecurity=False).digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % base64.b64encode(digest)
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.origin", description=__doc__)
    parser.add_argument("ports", type=int, nargs="+")
    args = parser.parse_args()
    listeners = [
        socket.create_server(("127.0.0.1", port), backlog=4096, reuse_port=False)
        for port in args.ports
    ]
    exact_timers()
    Origin(listeners).serve()


if __name__ == "__main__":
    main()
