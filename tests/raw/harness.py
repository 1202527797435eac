"""A real router between a client that sends any bytes and an origin that remembers every byte.

Owns the three ends of the raw suite. Strategy:

1. `Stand` is one running router (`python -m router serve`, one worker) with one recording origin in
   this process; a session has one per kind of settings.
2. A client reads until the router closes, so a test never guesses whether more would have come:
   what must stay open is proved by a last request with `connection: close`.
3. The origin reads with the strict parser of `tests.fuzz.reference`, and answers by a script that the
   request's target chose. What it cannot read is a violation, which fails the test that runs.
"""

import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from pathlib import Path
from typing import Any

import orjson

from tests.fuzz import reference
from tests.fuzz.reference import CRLF, End, Fields, Message, Partial, read_requests
from tests.serve.harness import Router, document, poll, serving, total

DEADLINE_S = 10.0


class Step(Enum):
    """What an origin does besides sending bytes."""

    READ = "read the request to its end"
    HOLD = "wait until the router goes away"
    ECHO = "send back whatever comes until it ends"
    HALF = "close for writing"
    CLOSE = "close"
    RESET = "reset"


Script = Sequence[bytes | Step]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
ANSWER_OK: Script = (Step.READ, OK)


@dataclass
class Link:
    """One connection from the router, with every byte that came over it."""

    number: int
    received: bytearray = field(default_factory=bytearray)
    requests: list[Message] = field(default_factory=list)
    raws: list[bytes] = field(default_factory=list)
    """The bytes of each of `requests`."""
    ending: str = ""
    """`closed` or `reset` by the router, `left` when the origin ended it; empty while it is open."""


class Origin:
    """A recording endpoint: a thread for each connection."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.violations: list[bytes] = []
        self._scripts: dict[bytes, Script] = {}
        self._any: Script = ANSWER_OK
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def script(self, target: bytes, *steps: bytes | Step) -> None:
        """What requests for `target` get; without steps, the usual answer."""
        self._scripts[target] = steps or ANSWER_OK

    def script_all(self, *steps: bytes | Step) -> None:
        """What requests get for whose target there is no script."""
        self._any = steps or ANSWER_OK

    @property
    def requests(self) -> list[Message]:
        """Everything that came whole, in order of connections."""
        return [message for link in self.links for message in link.requests]

    @property
    def received_bytes(self) -> int:
        return sum(len(link.received) for link in self.links)

    def asked(self, target: bytes) -> list[Message]:
        """The requests for `target`."""
        return [message for message in self.requests if message.start[1] == target]

    def link_of(self, target: bytes) -> Link:
        """The connection over which `target` was asked for, last."""
        (*_, link) = [
            link for link in self.links if any(m.start[1] == target for m in link.requests)
        ]
        return link

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            link = Link(len(self.links))
            self.links.append(link)
            threading.Thread(target=self._serve, args=(connection, link), daemon=True).start()

    def _serve(self, connection: socket.socket, link: Link) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = bytearray()
        with connection:
            try:
                while self._one(connection, link, buffer):
                    pass
                link.ending = "left"
            except ConnectionError:
                link.ending = "reset"
            except EOFError:
                link.ending = "closed"

    def _one(self, connection: socket.socket, link: Link, buffer: bytearray) -> bool:
        """One request. False when the script ended the connection."""
        head = self._read_head(connection, link, buffer)
        target = head.start[1]
        is_read = False
        for step in self._scripts.get(target, self._any):
            if isinstance(step, bytes):
                connection.sendall(step)
            elif step is Step.READ:
                is_read = True
                self._read_whole(connection, link, buffer)
            elif step in (Step.HOLD, Step.ECHO):
                self._follow(connection, link, buffer, is_echo=step is Step.ECHO)
            elif step is Step.HALF:
                connection.shutdown(socket.SHUT_WR)
            else:
                if step is Step.RESET:
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return False
        if not is_read:
            self._read_whole(connection, link, buffer)
        return True

    def _fill(self, connection: socket.socket, link: Link, buffer: bytearray) -> None:
        data = connection.recv(256 * 1024)
        if not data:
            raise EOFError
        link.received += data
        buffer += data

    def _follow(
        self, connection: socket.socket, link: Link, buffer: bytearray, *, is_echo: bool
    ) -> None:
        while True:
            if is_echo and buffer:
                connection.sendall(buffer)
                buffer.clear()
            try:
                self._fill(connection, link, buffer)
            except EOFError:
                if is_echo:
                    connection.shutdown(socket.SHUT_WR)
                raise

    def _read_head(self, connection: socket.socket, link: Link, buffer: bytearray) -> Message:
        while True:
            stream = read_requests(bytes(buffer))
            if stream.messages:
                return stream.messages[0]
            if stream.partial is not None:
                return stream.partial
            if stream.end is End.REFUSED:
                raise self._violation(buffer)
            self._fill(connection, link, buffer)

    def _read_whole(self, connection: socket.socket, link: Link, buffer: bytearray) -> None:
        while True:
            stream = read_requests(bytes(buffer))
            if stream.messages:
                length = length_of(bytes(buffer))
                link.raws.append(bytes(buffer[:length]))
                link.requests.append(stream.messages[0])
                del buffer[:length]
                return
            if stream.end is End.REFUSED:
                raise self._violation(buffer)
            self._fill(connection, link, buffer)

    def _violation(self, buffer: bytearray) -> ConnectionError:
        self.violations.append(bytes(buffer))
        return ConnectionAbortedError("not HTTP/1.1")


def length_of(data: bytes) -> int:
    """The bytes of the first request in `data`, which is whole."""
    _, fields, position = reference.head_at(data, 0)
    _, end = reference.body_at(data, position, reference.framing(fields, 1) or 0)
    return end


@dataclass(frozen=True)
class Answer:
    """A response as a strict client reads it. `is_whole`: its framing came to its end."""

    status: int
    fields: Fields
    body: bytes
    is_whole: bool = True
    is_until_close: bool = False

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key == name]

    def value(self, name: bytes) -> bytes | None:
        values = self.values(name)
        assert len(values) <= 1, values
        return values[0] if values else None

    @property
    def reason(self) -> str:
        """The reason of a problem document, after checking that it is one (RFC 9457)."""
        assert self.value(b"content-type") == b"application/problem+json", self
        problem = orjson.loads(self.body)
        assert problem["status"] == self.status
        assert problem["title"]
        prefix, _, reason = problem["type"].rpartition(":")
        assert prefix == "urn:pointsman:problem"
        return str(reason)


@dataclass(frozen=True)
class Outcome:
    """All that a client got, and how it ended: `closed` or `reset`."""

    raw: bytes
    ending: str

    def answers(self, *methods: bytes) -> list[Answer]:
        """The responses, interim ones included; `methods` of the requests, GET by default.

        A body that the connection's end ends is whole only when that was no reset.
        """
        found: list[Answer] = []
        data, position = self.raw, 0
        asked = iter(methods)
        method = next(asked, b"GET")
        while position < len(data):
            line, fields, position = reference.head_at(data, position)
            status = int(reference.status_line(line)[1])
            how = reference.framing(fields, 1)
            if 100 <= status < 200 and status != 101:
                assert how is None, fields
                found.append(Answer(status, fields, b""))
                continue
            if method == b"HEAD" or status in (204, 304):
                how = 0
            method = next(asked, b"GET")
            if how is None:
                body, position = data[position:], len(data)
                found.append(Answer(status, fields, body, self.ending == "closed", True))
                continue
            try:
                body, position = reference.body_at(data, position, how)
            except Partial as partial:
                found.append(Answer(status, fields, partial.payload, is_whole=False))
                break
            found.append(Answer(status, fields, body))
        return found

    @property
    def only(self) -> Answer:
        """The only response, interim ones apart."""
        (answer,) = [a for a in self.answers() if a.status >= 200 or a.status == 101]
        return answer


class Client:
    """One connection to the router."""

    def __init__(self, address: str, source: str = "127.0.0.1") -> None:
        host, _, port = address.rpartition(":")
        self.sock = socket.create_connection(
            (host, int(port)), timeout=DEADLINE_S, source_address=(source, 0)
        )
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = bytearray()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, *segments: bytes) -> "Client":
        """Each segment in a packet of its own. A router that is gone already is no error."""
        with suppress(BrokenPipeError, ConnectionResetError):
            for segment in segments:
                self.sock.sendall(segment)
        return self

    def half_close(self) -> "Client":
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
        return self

    def until(self, mark: bytes) -> bytes:
        """All that came, once `mark` is in it."""
        while mark not in self.received:
            data = self.sock.recv(64 * 1024)
            assert data, f"ended without {mark!r}: {bytes(self.received)!r}"
            self.received += data
        return bytes(self.received)

    def end(self) -> Outcome:
        """Read until the router ends the connection."""
        try:
            while data := self.sock.recv(64 * 1024):
                self.received += data
        except ConnectionResetError:
            return Outcome(bytes(self.received), "reset")
        return Outcome(bytes(self.received), "closed")

    def until_read(self) -> "Client":
        """Wait until the router has taken everything sent: its receive queue is empty."""
        end_s = time.monotonic() + DEADLINE_S
        while unread_bytes(self.sock):
            assert time.monotonic() < end_s, "the router does not read"
        return self


def unread_bytes(sock: socket.socket) -> int:
    """Bytes in the receive queue of a loopback connection's other end; see sock_diag(7)."""
    (host, port), (peer_host, peer_port) = sock.getsockname(), sock.getpeername()
    ends = struct.pack(">HH4s12x4s12x", peer_port, port, *map(socket.inet_aton, (peer_host, host)))
    question = struct.pack("=BBxxI", socket.AF_INET, socket.IPPROTO_TCP, 0xFFFF) + ends
    question += struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # any interface, any cookie
    head = struct.pack("=IHHII", 16 + len(question), 20, 1, 0, 0)  # SOCK_DIAG_BY_FAMILY, REQUEST
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as diag:  # NETLINK_SOCK_DIAG
        diag.send(head + question)
        answer = diag.recv(4096)
    (kind,) = struct.unpack_from("=H", answer, 4)
    return struct.unpack_from("=I", answer, 16 + 56)[0] if kind == 20 else 0  # else: it is gone


class Stand:
    """A router and its origin. `mark` and `check` bracket what one test does."""

    def __init__(self, router: Router, origin: Origin) -> None:
        self.router = router
        self.origin = origin
        self._numbers = count(1)
        self._before: Counter[str] = Counter()
        self._seen = 0

    def target(self) -> bytes:
        """A target that no other case has."""
        return b"/case/%d" % next(self._numbers)

    def client(self, source: str = "127.0.0.1") -> Client:
        return Client(self.router.listen, source)

    def send(self, *segments: bytes, source: str = "127.0.0.1") -> Outcome:
        """What a client gets for these bytes, up to the end of its connection."""
        with self.client(source) as client:
            return client.send(*segments).end()

    def refused(self) -> Counter[str]:
        """`pointsman_refused_total` by reason."""
        metrics = self.router.metrics()
        found = re.compile(r'pointsman_refused_total\{reason="([^"]+)"\}')
        return Counter({m[1]: int(v) for s, v in metrics.items() if (m := found.fullmatch(s))})

    def counted(self, name: str, **labels: str) -> float:
        return total(self.router.metrics(), name, **labels)

    def mark(self) -> None:
        """Remember what was counted and received so far."""
        self._before = self.refused()
        self._seen = self.origin.received_bytes

    def newly_refused(self) -> dict[str, int]:
        """Refusals since `mark`, by reason."""
        return dict(self.refused() - self._before)

    def newly_received(self) -> int:
        """Bytes at the origin since `mark`."""
        return self.origin.received_bytes - self._seen

    def seen_at_origin(self, target: bytes) -> bytes:
        """The one request for `target`, byte for byte."""
        link = self.origin.link_of(target)
        (raw,) = [
            raw
            for raw, message in zip(link.raws, link.requests, strict=True)
            if message.start[1] == target
        ]
        return raw

    def link_ended(self, target: bytes) -> str:
        """How the connection over which `target` was asked for ended; waits for it."""
        link = self.origin.link_of(target)
        return poll(lambda: link.ending, "ended")


@contextmanager
def standing(directory: Path, backend: dict[str, Any], **settings: Any) -> Iterator[Stand]:
    """A stand whose backend has these keys; `settings` are top-level keys of the config."""
    origin = Origin()
    config = document([("origin", origin.url)], **settings)
    config["routes"] = [{"name": "all", "backend": "origin"}]
    config["backends"]["origin"].update(backend)
    try:
        with serving(directory, config) as router:
            yield Stand(router, origin)
    finally:
        origin.stop()


def head(target: bytes, *lines: bytes, method: bytes = b"GET") -> bytes:
    """A head with these field lines after `host`."""
    return CRLF.join((b"%b %b HTTP/1.1" % (method, target), b"host: h", *lines, b"", b""))
