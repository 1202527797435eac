"""One stream on one connection, as a client sees it: every unit of it is looked at.

Knows nothing of schedules; `benchmarks.streams` runs many of these at a rate. `Events` are
server-sent events on their way from the origin, `Messages` go to the origin and back.
"""

import socket
import time
from dataclasses import dataclass, field
from typing import Final

from benchmarks.errors import BenchmarkError
from benchmarks.frames import EVENT_BYTES, FRAME_BYTES, Stamp, message, read_echo, read_event
from benchmarks.poller import Poller

_READ_BYTES: Final = 64 * 1024
_MASK: Final = b"\x11\x2b\x3c\x4d"
_SSE_REQUEST: Final = (
    "GET /sse?first={first}&every={every}&count={count} HTTP/1.1\r\n"
    "Host: models.example\r\nAccept: text/event-stream\r\n\r\n"
)
_UPGRADE: Final = (
    b"GET /websocket HTTP/1.1\r\nHost: models.example\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@dataclass(slots=True)
class Tally:
    """What came in. `is_counting` within the window."""

    is_counting: bool = False
    delays_us: list[float] = field(default_factory=list)
    late_us: list[float] = field(default_factory=list)

    def count(self, stamp: Stamp, expected: int) -> None:
        if stamp.number != expected:
            raise BenchmarkError(f"expected unit {expected} of a stream, found {stamp.number}")
        if self.is_counting:
            self.delays_us.append((time.monotonic_ns() - stamp.due_ns) / 1000)
            self.late_us.append((stamp.sent_ns - stamp.due_ns) / 1000)


class Stream:
    """One connection and what has come on it. `count` units are to come, one each `every_ns`."""

    def __init__(self, port: int, tally: Tally, every_ns: int, count: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tally = tally
        self._every_ns = every_ns
        self._count = count
        self._received = bytearray()
        self._seen = 0

    @property
    def is_whole(self) -> bool:
        return self._seen == self._count

    def open(self) -> None:
        """Send the head that makes it a stream, and read what is answered at once."""

    def start(self, poller: Poller, first_ns: int) -> None:
        self._sock.setblocking(False)
        poller.add(self._sock, self.on_ready)

    def on_ready(self) -> None:
        """Raises BenchmarkError when the stream ended, or brought what it should not."""
        try:
            content = self._sock.recv(_READ_BYTES)
        except OSError as error:
            raise self._broken(error) from error
        if not content:
            raise self._broken("closed")
        self._received += content
        self._on_bytes()

    def close(self) -> None:
        self._sock.close()

    def _on_bytes(self) -> None:
        raise NotImplementedError

    def _broken(self, why: object) -> BenchmarkError:
        return BenchmarkError(f"a stream ended after {self._seen} of {self._count} units: {why}")

    def _count_one(self, stamp: Stamp) -> None:
        self._tally.count(stamp, self._seen)
        self._seen += 1

    def _read_head(self, status: bytes) -> bool:
        """Take the answer's head. False while it is not whole."""
        end = self._received.find(b"\r\n\r\n")
        if end >= 0:
            if self._received[9:12] != status:
                raise BenchmarkError(f"expected {status!r}, found {bytes(self._received[:end])!r}")
            del self._received[: end + 4]
        return end >= 0


class Events(Stream):
    """Server-sent events in chunks, however a proxy cut them."""

    def __init__(self, port: int, tally: Tally, every_ns: int, count: int) -> None:
        super().__init__(port, tally, every_ns, count)
        self._events = bytearray()
        self._has_head = False
        self._has_ended = False

    @property
    def is_whole(self) -> bool:
        return self._has_ended and super().is_whole

    def start(self, poller: Poller, first_ns: int) -> None:
        request = _SSE_REQUEST.format(first=first_ns, every=self._every_ns, count=self._count)
        self._sock.sendall(request.encode())
        super().start(poller, first_ns)

    def _on_bytes(self) -> None:
        self._has_head = self._has_head or self._read_head(b"200")
        if self._has_head:
            while self._take_chunk():
                pass
            while len(self._events) >= EVENT_BYTES:
                one = bytes(self._events[:EVENT_BYTES])
                del self._events[:EVENT_BYTES]
                self._count_one(read_event(one))

    def _take_chunk(self) -> bool:
        received = self._received
        end = received.find(b"\r\n")
        if end < 0:
            return False
        size = int(received[:end].partition(b";")[0], 16)
        whole = end + 2 + size + 2
        if len(received) < whole:
            return False
        if received[whole - 2 : whole] != b"\r\n" or self._has_ended:
            raise BenchmarkError(f"expected the end of a chunk, found {bytes(received)!r}")
        self._events += received[end + 2 : whole - 2]
        self._has_ended = size == 0
        del received[:whole]
        return True


class Messages(Stream):
    """Messages on a WebSocket, sent when due, and their echoes."""

    def __init__(self, port: int, tally: Tally, every_ns: int, count: int) -> None:
        super().__init__(port, tally, every_ns, count)
        self._sent = 0
        self.due_ns = 0

    def __lt__(self, other: "Messages") -> bool:
        return self.due_ns < other.due_ns

    def open(self) -> None:
        self._sock.sendall(_UPGRADE)
        while not self._read_head(b"101"):
            content = self._sock.recv(_READ_BYTES)
            if not content:
                raise BenchmarkError(f"no upgrade, but {bytes(self._received)!r}")
            self._received += content

    def start(self, poller: Poller, first_ns: int) -> None:
        self.due_ns = first_ns
        super().start(poller, first_ns)

    def send(self) -> bool:
        """Send the message that is due. False when it was the last.

        Raises:
            BenchmarkError: the connection has ended, or the proxy takes no more bytes.
        """
        frame = message(Stamp(self._sent, self.due_ns, time.monotonic_ns()), _MASK)
        try:
            sent = self._sock.send(frame)
        except OSError as error:
            raise self._broken(error) from error
        if sent != len(frame):
            raise self._broken(f"it took {sent} of {len(frame)} bytes, the proxy has stalled")
        self._sent += 1
        self.due_ns += self._every_ns
        return self._sent < self._count

    def _on_bytes(self) -> None:
        while len(self._received) >= FRAME_BYTES:
            frame = bytes(self._received[:FRAME_BYTES])
            del self._received[:FRAME_BYTES]
            self._count_one(read_echo(frame))


KINDS: Final[dict[str, type[Stream]]] = {"sse": Events, "websocket": Messages}
