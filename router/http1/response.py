"""Response heads: parsed with the same suspicion from an endpoint, written anew for a client.

Owns where a response's body ends (RFC 9112 section 6.3) and which fields stay on the hop.
"""

import re
from http import HTTPStatus
from typing import Final

from router.errors import UPSTREAM_MALFORMED, HeadError
from router.http1.fields import FieldLines, Fields, index, list_items, value_of

CHUNKED: Final = -1
"""The value of `ResponseHead.body_bytes` for a chunked body."""
UNTIL_CLOSE: Final = -2
"""The value of `ResponseHead.body_bytes` for a body that the connection's end ends."""

_STATUS_LINE: Final = re.compile(
    rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?\Z"
)
_LENGTH: Final = re.compile(rb"[0-9]{1,18}\Z")
_KEEP_ALIVE_TIMEOUT: Final = re.compile(rb"timeout=([0-9]{1,6})(?![0-9])")
_REMEMBERED_MAX_LINES: Final = 256
_REMEMBERED_MAX_HEADS: Final = 512
_REMEMBERED_MAX_BYTES: Final = 1024

_ONCE: Final = frozenset((b"content-length", b"transfer-encoding"))
_SPECIAL: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-request-id",
        b"x-router-receipt",
        b"x-router-route",
        b"x-router-variant",
    )
)
"""Of the hop, or written by the router itself."""
_TAKEN_OUT: Final = tuple(_SPECIAL - {b"connection", b"keep-alive", b"transfer-encoding"})
_NEVER_NOMINATED: Final = frozenset((b"content-length", b"transfer-encoding", b"set-cookie"))


class ResponseHead:
    """A head fit to be relayed. Immutable once parsed: the same bytes give the same object.

    `relayed` is the status line and the relayed fields, each ended by CRLF; `framed` adds the
    framing field for an HTTP/1.1 client. `body_bytes` is a length, `CHUNKED` or `UNTIL_CLOSE`;
    `declared_length` the content-length a bodiless answer (HEAD, 304) describes, or None.
    `is_switch`: a 101 to WebSocket. `keep_alive_s` is how long the endpoint says it keeps the idle
    connection, or None. `has_date`: it says when it was made.
    """

    __slots__ = (
        "body_bytes",
        "declared_length",
        "framed",
        "has_date",
        "is_switch",
        "keep_alive",
        "keep_alive_s",
        "relayed",
        "status",
    )

    status: int
    relayed: bytes
    framed: bytes
    body_bytes: int
    declared_length: int | None
    has_date: bool
    is_switch: bool
    keep_alive: bool
    keep_alive_s: float | None


class ResponseParser:
    """Parses response heads. One per worker: it remembers what it has validated."""

    def __init__(self, max_fields: int) -> None:
        self.max_fields = max_fields
        self._heads: dict[bytes, ResponseHead] = {}
        self._lines: dict[bytes, tuple[int, bytes, bool]] = {}
        self._known = FieldLines()

    def parse(self, raw: bytes, is_head: bool) -> ResponseHead:
        """The head in `raw` (all bytes before the empty line's CRLF CRLF).

        Raises:
            HeadError: it may not be relayed; the answer to the client is 502.
        """
        head = None if is_head else self._heads.get(raw)
        if head is not None:
            return head
        try:
            head = self._parse(raw, is_head)
        except HeadError as error:
            raise HeadError(UPSTREAM_MALFORMED, error.detail) from None
        if not is_head and len(raw) <= _REMEMBERED_MAX_BYTES and b"set-cookie:" not in raw.lower():
            if len(self._heads) >= _REMEMBERED_MAX_HEADS:
                self._heads.clear()
            self._heads[raw] = head
        return head

    def _parse(self, raw: bytes, is_head: bool) -> ResponseHead:
        lines = raw.split(b"\r\n")
        first = lines.pop(0)
        status, status_line, is_http11 = self._lines.get(first) or self._status_line(first)
        if len(lines) > self.max_fields:
            raise HeadError(
                UPSTREAM_MALFORMED,
                f"{len(lines)} header fields, expected no more than {self.max_fields}",
            )
        fields = index(lines, self._known, _ONCE)
        head = ResponseHead()
        head.status = status
        head.keep_alive = is_http11
        head.keep_alive_s = None
        head.is_switch = False
        length = fields.pop(b"content-length", None)
        if length is None:
            head.declared_length = None
            head.body_bytes = UNTIL_CLOSE
        else:
            value = length[15:].strip(b" \t")
            if not _LENGTH.match(value):
                raise HeadError(UPSTREAM_MALFORMED, "content-length is not a plain decimal number")
            head.declared_length = head.body_bytes = int(value)
        if not _SPECIAL.isdisjoint(fields):
            _special(head, fields, is_http11)
        head.has_date = b"date" in fields
        head.relayed = b"\r\n".join((status_line, *fields.values(), b""))
        head.framed = head.relayed + _framing(head)
        if is_head or status < 200 or status == 204 or status == 304:
            if status == 204 and head.body_bytes not in (0, UNTIL_CLOSE):
                head.keep_alive = False  # a body may follow that must not be there
            head.body_bytes = 0
        return head

    def _status_line(self, raw: bytes) -> tuple[int, bytes, bool]:
        match = _STATUS_LINE.match(raw)
        if match is None:
            raise HeadError(UPSTREAM_MALFORMED, "the status line is not 'HTTP/1.1 200 OK'")
        status = int(match[2])
        entry = (
            status,
            b"HTTP/1.1 %d %b" % (status, match[3] or _phrase(status)),
            match[1] == b"1",
        )
        if len(raw) <= _REMEMBERED_MAX_BYTES:
            if len(self._lines) >= _REMEMBERED_MAX_LINES:
                self._lines.clear()
            self._lines[raw] = entry
        return entry


def _special(head: ResponseHead, fields: Fields, is_http11: bool) -> None:
    coding = fields.pop(b"transfer-encoding", None)
    if coding is not None:
        if head.declared_length is not None:
            raise HeadError(
                UPSTREAM_MALFORMED, "both content-length and transfer-encoding are given"
            )
        if not is_http11:
            raise HeadError(UPSTREAM_MALFORMED, "transfer-encoding is given in HTTP/1.0")
        if value_of(b"transfer-encoding", coding).lower() != b"chunked":
            raise HeadError(UPSTREAM_MALFORMED, "transfer-encoding is not exactly 'chunked'")
        head.body_bytes = CHUNKED
    keep_alive = fields.pop(b"keep-alive", None)
    upgrade = fields.pop(b"upgrade", None)
    head.is_switch = (
        head.status == 101
        and is_http11
        and upgrade is not None
        and value_of(b"upgrade", upgrade).lower() == b"websocket"
    )
    connection = fields.pop(b"connection", None)
    if connection is not None:
        options = list_items(b"connection", connection)
        head.keep_alive = b"close" not in options and (is_http11 or b"keep-alive" in options)
        for option in options:
            if option not in _NEVER_NOMINATED:
                fields.pop(option, None)
    if keep_alive is not None and (match := _KEEP_ALIVE_TIMEOUT.search(keep_alive)):
        head.keep_alive_s = float(match[1])
    for name in _TAKEN_OUT:
        fields.pop(name, None)


def _framing(head: ResponseHead) -> bytes:
    """The framing field for an HTTP/1.1 client; RFC 9110 section 8.6: none on 1xx and 204."""
    if head.status < 200 or head.status == 204:
        return b""
    if head.declared_length is not None:
        return b"content-length: %d\r\n" % head.declared_length
    return b"" if head.status == 304 else b"transfer-encoding: chunked\r\n"


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
