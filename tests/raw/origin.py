"""The origin of the raw suite: an endpoint that remembers every byte and answers by a script.

It reads with the strict parser of `tests.fuzz.reference`. What it cannot read is a violation, which
fails the test that runs.
"""

import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum

from tests.fuzz import reference
from tests.fuzz.reference import End, Message, read_requests


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
    """`closed` or `reset` by the router, `left` when the origin ended it; empty while open."""


class Origin:
    """A recording endpoint: a thread for each connection."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.requests: list[Message] = []
        """All that came whole, in order of time."""
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
            except OSError:
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
                self.requests.append(stream.messages[0])
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
