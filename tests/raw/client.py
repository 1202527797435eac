"""The client of the raw suite: sends any bytes, and reads as strictly as it can.

It reads until the router closes, so a test never guesses whether more would have come: what must
stay open is proved by a last request with `connection: close`.
"""

import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass

import orjson

from tests.fuzz import reference
from tests.fuzz.reference import Fields, Incomplete, Partial

DEADLINE_S = 10.0


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

    def answers(self, *methods: bytes, may_be_cut: bool = False) -> list[Answer]:
        """The responses, interim ones included; `methods` of the requests, GET by default.

        A body that the connection's end ends is whole only when that was no reset. `may_be_cut`: so
        may be the last head; it is left out then.
        """
        found: list[Answer] = []
        data, position = self.raw, 0
        asked = iter(methods)
        method = next(asked, b"GET")
        while position < len(data):
            try:
                line, fields, position = reference.head_at(data, position)
            except Incomplete:
                assert may_be_cut, data[position:]
                break
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
        self._own, self._peer = self.sock.getsockname(), self.sock.getpeername()

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
        while unread_bytes(self._own, self._peer):
            assert time.monotonic() < end_s, "the router does not read"
        return self


Address = tuple[str, int]


def unread_bytes(own: Address, peer: Address) -> int:
    """Bytes in the receive queue of a loopback connection's other end; see sock_diag(7)."""
    addresses = socket.inet_aton(peer[0]), socket.inet_aton(own[0])
    ends = struct.pack(">HH4s12x4s12x", peer[1], own[1], *addresses)
    question = struct.pack("=BBxxI", socket.AF_INET, socket.IPPROTO_TCP, 0xFFFF) + ends
    question += struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # any interface, any cookie
    head = struct.pack("=IHHII", 16 + len(question), 20, 1, 0, 0)  # SOCK_DIAG_BY_FAMILY, REQUEST
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as diag:  # NETLINK_SOCK_DIAG
        diag.send(head + question)
        answer = diag.recv(4096)
    (kind,) = struct.unpack_from("=H", answer, 4)
    return struct.unpack_from("=I", answer, 16 + 56)[0] if kind == 20 else 0  # else: it is gone
