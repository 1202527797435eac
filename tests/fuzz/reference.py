"""HTTP/1.1 read a second time, by other means: the oracle of the fuzzers.

Walks through bytes as RFC 9110 and 9112 spell their grammar, with no regular expression, no
memory between messages and nothing imported from the router. Slow and plain on purpose. Where the
RFCs leave a choice between refusing and repairing, it refuses.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

CRLF = b"\r\n"
ALPHA = frozenset(range(0x41, 0x5B)) | frozenset(range(0x61, 0x7B))
DIGIT = frozenset(range(0x30, 0x3A))
HEXDIG = DIGIT | frozenset(b"abcdefABCDEF")
TCHAR = ALPHA | DIGIT | frozenset(b"!#$%&'*+-.^_`|~")
VCHAR = frozenset(range(0x21, 0x7F))
TEXT = VCHAR | frozenset(range(0x80, 0x100)) | frozenset(b" \t")
HOST = ALPHA | DIGIT | frozenset(b"-._~!$&'()*+,;=%")
LENGTH_MAX_DIGITS = 18
KEPT_IN_REQUESTS = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"authorization", b"cookie", b"expect")
)
KEPT_IN_RESPONSES = frozenset((b"content-length", b"transfer-encoding", b"set-cookie"))
"""What `connection` may name in vain, because others rely on it."""
HOP = {
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate",
    b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"content-length", b"upgrade",
}  # fmt: skip
Fields = list[tuple[bytes, bytes]]


class Refused(Exception):
    """The bytes are not HTTP/1.1, or mean two things."""


class Incomplete(Exception):
    """More bytes are needed."""


class End(Enum):
    """How a stream of messages ended."""

    CLEAN = "clean"
    INCOMPLETE = "incomplete"
    REFUSED = "refused"


@dataclass(frozen=True)
class Message:
    """A message with its body. `start` are the three parts of its first line."""

    start: tuple[bytes, bytes, bytes]
    fields: Fields
    body: bytes = b""
    is_complete: bool = True

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key == name]

    def end_to_end(self, apart_from: Iterable[bytes] = ()) -> dict[bytes, list[bytes]]:
        """Name -> values, without what belongs to the hop."""
        is_response = self.start[0].startswith(b"HTTP/")
        kept_anyway = KEPT_IN_RESPONSES if is_response else KEPT_IN_REQUESTS
        nominated = set(elements(self.values(b"connection"))) - kept_anyway
        gone = HOP | nominated | set(apart_from)
        kept: dict[bytes, list[bytes]] = {}
        for name, value in self.fields:
            if name not in gone:
                kept.setdefault(name, []).append(value)
        return kept


@dataclass
class Stream:
    """Messages in order, then how it ended; `partial` is one of which the body was not whole."""

    messages: list[Message] = field(default_factory=list)
    end: End = End.CLEAN
    partial: Message | None = None
    rest: bytes = b""


def elements(values: Iterable[bytes]) -> list[bytes]:
    """Members of a comma-separated field, lower-case."""
    found = (item.strip(b" \t").lower() for value in values for item in value.split(b","))
    return [item for item in found if item]


def line_at(data: bytes, position: int) -> tuple[bytes, int]:
    """The line there and where the next begins. CR and LF occur only together."""
    for index in range(position, len(data)):
        if data[index] == 0x0A:
            raise Refused("bare LF")
        if data[index] == 0x0D:
            if index + 1 == len(data):
                raise Incomplete
            if data[index + 1] != 0x0A:
                raise Refused("bare CR")
            return data[position:index], index + 2
    raise Incomplete


def field_line(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not name or not TCHAR.issuperset(name):
        raise Refused("not a field line")
    if not TEXT.issuperset(value):
        raise Refused("control character in a value")
    return name.lower(), value.strip(b" \t")


def fields_at(data: bytes, position: int) -> tuple[Fields, int]:
    found: Fields = []
    while True:
        line, position = line_at(data, position)
        if not line:
            return found, position
        found.append(field_line(line))


def head_at(data: bytes, position: int) -> tuple[bytes, Fields, int]:
    """First line, fields, where the body begins."""
    if data.find(CRLF + CRLF, position) < 0:
        raise Incomplete  # whether it is refused early or awaited is the reader's choice
    line, position = line_at(data, position)
    fields, position = fields_at(data, position)
    return line, fields, position


def framing(fields: Fields, minor: int) -> int | bytes | None:
    """A length, `b"chunked"`, or None when neither field is there (RFC 9112 section 6)."""
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    if lengths and codings:
        raise Refused("two framings")
    if codings:
        if minor == 0 or len(codings) > 1 or codings[0].lower() != b"chunked":
            raise Refused("coding")
        return b"chunked"
    if lengths:
        value = lengths[0]
        if len(lengths) > 1 or not value or not DIGIT.issuperset(value):
            raise Refused("length")
        if len(value) > LENGTH_MAX_DIGITS:
            raise Refused("length overflows")
        return int(value)
    return None


def chunked_at(data: bytes, position: int) -> tuple[bytes, int]:
    """Payload and where the next message begins (RFC 9112 section 7.1).

    Raises:
        Partial: it is not whole.
    """
    payload = bytearray()
    try:
        while True:
            line, position = line_at(data, position)
            size, semicolon, extension = line.partition(b";")
            size = size.rstrip(b" \t") if semicolon else size
            if not size or not HEXDIG.issuperset(size) or len(size) > 15:
                raise Refused("chunk size")
            if not TEXT.issuperset(extension):
                raise Refused("chunk extension")
            length = int(size, 16)
            if length == 0:
                _, position = fields_at(data, position)
                return bytes(payload), position
            payload += data[position : position + length]
            position += length
            after = data[position : position + 2]
            if not CRLF.startswith(after):
                raise Refused("chunk end")
            if len(after) < 2:
                raise Incomplete
            position += 2
    except Incomplete:
        raise Partial(bytes(payload)) from None


class Partial(Exception):
    """A body that is not whole; carries what there is."""

    def __init__(self, payload: bytes) -> None:
        super().__init__()
        self.payload = payload


def body_at(data: bytes, position: int, how: int | bytes) -> tuple[bytes, int]:
    if isinstance(how, bytes):
        return chunked_at(data, position)
    if len(data) - position < how:
        raise Partial(data[position:])
    return data[position : position + how], position + how


# requests


def request_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    parts = line.split(b" ")
    if len(parts) != 3:
        raise Refused("request line")
    method, target, version = parts
    if not method or not TCHAR.issuperset(method) or not target or not VCHAR.issuperset(target):
        raise Refused("request line")
    if len(version) != 8 or version[:7] != b"HTTP/1." or version[7] not in DIGIT:
        raise Refused("version")
    return method, target, version


def host_of(value: bytes) -> None:
    """RFC 3986 section 3.2: `host [":" port]`, userinfo forbidden (RFC 9110 section 4.2.4)."""
    if value.startswith(b"["):
        address, bracket, port = value[1:].partition(b"]")
        if not bracket or not address or not (HEXDIG | {0x3A, 0x2E}).issuperset(address):
            raise Refused("host")
        if port[:1] not in (b"", b":"):
            raise Refused("host")
        port = port[1:]
    else:
        name, _, port = value.partition(b":")
        if not HOST.issuperset(name) or (not name and value):
            raise Refused("host")
    if not DIGIT.issuperset(port) or len(port) > 5 or int(port or b"0") > 65535:
        raise Refused("port")


def route_of(message: Message) -> tuple[bytes, bytes]:
    """The target in origin form, and the host that goes with it (RFC 9112 section 3.2)."""
    method, target, version = message.start
    hosts = message.values(b"host")
    if len(hosts) > 1 or (not hosts and version != b"HTTP/1.0"):
        raise Refused("host")
    host = hosts[0] if hosts else b""
    host_of(host)
    if b"#" in target:
        raise Refused("fragment")
    if target[:7].lower() == b"http://":
        end = min((i for i in (target.find(c, 7) for c in (b"/", b"?")) if i >= 0), default=None)
        host = target[7:end]
        target = b"" if end is None else target[end:]
        if not host:
            raise Refused("authority")
        host_of(host)
        if not target:
            target = b"*" if method == b"OPTIONS" else b"/"
        elif target.startswith(b"?"):
            target = b"/" + target
    elif not target.startswith(b"/") and (target, method) != (b"*", b"OPTIONS"):
        raise Refused("target")
    return target, host


def read_requests(data: bytes) -> Stream:
    """Every request in `data`, until it ends or cannot be read on."""
    stream, position = Stream(), 0
    try:
        while position < len(data):
            begin = position
            while data.startswith(CRLF, begin):  # RFC 9112 section 2.2
                begin += 2
            if begin == len(data):
                break
            line, fields, position = head_at(data, begin)
            message = Message(request_line(line), fields)
            route_of(message)
            how = framing(fields, message.start[2][7] - 0x30)
            try:
                body, position = body_at(data, position, how or 0)
            except Partial as partial:
                stream.partial = Message(message.start, fields, partial.payload, is_complete=False)
                raise Incomplete from None
            stream.messages.append(Message(message.start, fields, body))
    except Incomplete:
        stream.end = End.INCOMPLETE
    except Refused:
        stream.end = End.REFUSED
    return stream


# responses


def status_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    version, _, rest = line.partition(b" ")
    status, space, reason = rest[:3], rest[3:4], rest[4:]
    if version not in (b"HTTP/1.0", b"HTTP/1.1") or len(status) != 3:
        raise Refused("status line")
    if not DIGIT.issuperset(status) or status[:1] not in (b"1", b"2", b"3", b"4", b"5"):
        raise Refused("status")
    if space not in (b"", b" ") or not TEXT.issuperset(reason):
        raise Refused("reason")
    return version, status, reason


def read_response(data: bytes, *, is_head: bool) -> Stream:
    """Interim answers and the final one, from an endpoint that sends `data` and closes."""
    stream, position = Stream(), 0
    try:
        while True:
            line, fields, position = head_at(data, position)
            start = status_line(line)
            how = framing(fields, start[0][7] - 0x30)
            status = int(start[1])
            if status == 101:
                raise Refused("nobody asked to switch")
            if status < 200:
                stream.messages.append(Message(start, fields))
                continue
            if is_head or status in (204, 304):
                how = 0
            if how is None:
                body, position = data[position:], len(data)
            else:
                try:
                    body, position = body_at(data, position, how)
                except (Partial, Refused):
                    stream.partial = Message(start, fields, is_complete=False)
                    raise Incomplete from None
            stream.messages.append(Message(start, fields, body))
            stream.rest = data[position:]
            return stream
    except Incomplete:
        stream.end = End.INCOMPLETE
    except Refused:
        stream.end = End.REFUSED
    return stream
