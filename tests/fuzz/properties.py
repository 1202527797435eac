"""What must hold for any bytes whatever: the invariants of the parsers in `router.http1`.

Each check takes one input and raises `AssertionError` when the invariant is broken; anything else
that is raised is a crash. It returns whether the input was accepted. Parsers live as long as the
checks, as in a worker, so that what they remember is under test too.
"""

from router.errors import HeadError
from router.http1.body import ChunkedDecoder
from router.http1.forwarded import peer_address
from router.http1.request import RequestParser
from router.http1.request_head import CHUNKED, RequestHead, write_request_head
from router.http1.response import UNTIL_CLOSE, ResponseParser
from tests.fuzz import reference
from tests.fuzz.reference import Partial, Refused, elements

PEER = peer_address("192.0.2.7", ())
END = b"\r\n\r\n"
REPLACED = (
    b"host", b"via", b"forwarded", b"x-real-ip", b"x-request-id", b"max-forwards", b"expect",
    b"x-router-receipt", b"x-router-route", b"x-router-shadow", b"x-router-variant",
)  # fmt: skip
"""Request fields that the router rewrites, or takes from strangers; `x-forwarded-*` as well."""
OWN = (
    b"x-request-id",
    b"x-router-receipt",
    b"x-router-route",
    b"x-router-variant",
    b"date",
    b"via",
)
"""Response fields that the router writes."""


def relayed(message: reference.Message) -> dict[bytes, list[bytes]]:
    """The fields of a request that must reach the endpoint as they are."""
    fields = message.end_to_end(REPLACED)
    return {name: fields[name] for name in fields if not name.startswith(b"x-forwarded-")}


class Properties:
    """The three checks, over parsers with the router's default bounds."""

    def __init__(self) -> None:
        self._requests = RequestParser(100, 8192)
        self._again = RequestParser(200, 16384)
        self._responses = ResponseParser(200)

    def request(self, data: bytes) -> bool:
        """An accepted head is what the reference reads; written anew it parses to the same.

        No beginning of it is refused.
        """
        raw = data.partition(END)[0]
        try:
            head = self._requests.parse(raw, PEER)
        except HeadError:
            return False
        for end in (1, len(raw) // 4, len(raw) // 2, len(raw) - 1):
            self._requests.check_beginning(raw[:end])
        line, fields, _ = reference.head_at(raw + END, 0)
        seen = reference.Message(reference.request_line(line), fields)
        target, host = reference.route_of(seen)
        how = reference.framing(fields, 0 if head.is_http10 else 1)
        assert head.method == seen.start[0]
        assert head.body_bytes == (CHUNKED if how == b"chunked" else how or 0)
        written = write_request_head(head, head.body_bytes, b"id")
        assert written.index(END) == len(written) - 4
        line, fields, _ = reference.head_at(written, 0)
        out = reference.Message(reference.request_line(line), fields)
        assert out.start == (head.method, target, b"HTTP/1.1")
        assert out.values(b"host") == [host]
        assert relayed(out) == relayed(seen)
        assert len(out.values(b"content-length")) + len(out.values(b"transfer-encoding")) <= 1
        assert len(out.values(b"x-forwarded-for")) == len(out.values(b"x-request-id")) == 1
        if not head.is_last_hop:
            self._same(head, self._again.parse(written[:-4], PEER))
        return True

    def _same(self, head: RequestHead, again: RequestHead) -> None:
        assert (again.method, again.path, again.host) == (head.method, head.path, head.host)
        assert (again.body_bytes, again.is_upgrade) == (head.body_bytes, head.is_upgrade)
        assert again.expects_continue == head.expects_continue
        apart = (b"max-forwards",)
        ours = [item for item in head.fields.items() if item[0] not in apart]
        assert [item for item in again.fields.items() if item[0] not in apart] == ours

    def response(self, data: bytes) -> bool:
        """As `request`, with a final head as clients get it; twice, since heads are remembered."""
        is_head = data[-1:] == b"!"
        raw = data.partition(END)[0]
        try:
            head = self._responses.parse(raw, is_head)
        except HeadError:
            return False
        line, fields, _ = reference.head_at(raw + END, 0)
        seen = reference.Message(reference.status_line(line), fields)
        how = reference.framing(fields, seen.start[0][7] - 0x30)
        assert head.status == int(seen.start[1])
        bodiless = is_head or head.status < 200 or head.status in (204, 304)
        if bodiless:
            assert head.body_bytes == 0
        else:
            expected = UNTIL_CLOSE if how is None else CHUNKED if isinstance(how, bytes) else how
            assert head.body_bytes == expected
        assert head.framed.startswith(head.relayed)
        line, fields, end = reference.head_at(head.framed + b"\r\n", 0)
        assert end == len(head.framed) + 2
        out = reference.Message(reference.status_line(line), fields)
        assert out.start[:2] == (b"HTTP/1.1", seen.start[1])
        assert out.end_to_end(OWN) == seen.end_to_end(OWN)
        if "close" in [item.decode("latin-1") for item in elements(seen.values(b"connection"))]:
            assert not head.keep_alive
        again = self._responses.parse(raw, is_head)
        assert (again.status, again.framed) == (head.status, head.framed)
        assert (again.body_bytes, again.keep_alive) == (head.body_bytes, head.keep_alive)
        return True

    def chunked(self, data: bytes) -> bool:
        """Decoding equals the reference, and is the same however the bytes are cut."""
        cut, data = data[:2], data[2:]
        whole = _decode([data])
        points = sorted(byte * len(data) // 255 for byte in cut)
        pieces = [data[a:b] for a, b in zip([0, *points], [*points, len(data)], strict=True)]
        assert _decode(pieces) == whole, pieces
        assert _decode([data[i : i + 1] for i in range(len(data))]) == whole
        try:
            payload, end = reference.chunked_at(data, 0)
        except Refused:
            assert whole is None
            return False
        except Partial as partial:
            assert whole is None or whole == (partial.payload, False, b"")
            return False
        assert whole is None or whole == (payload, True, data[end:])
        return whole is not None


def _decode(pieces: list[bytes]) -> tuple[bytes, bool, bytes] | None:
    """Payload, whether it ended, what followed; None when refused."""
    decoder = ChunkedDecoder()
    payload, rest = b"", b""
    try:
        for piece in pieces:
            if decoder.done:
                rest += piece
            else:
                payload += decoder.feed(piece)
                rest = decoder.rest
    except HeadError:
        return None
    return payload, decoder.done, rest
