"""How the tests of this directory call the parsers: one fresh parser a call, one known client."""

from router.http1.forwarded import ClientAddress, peer_address
from router.http1.request import RequestParser
from router.http1.request_head import RequestHead, write_request_head
from router.http1.response import ResponseHead, ResponseParser

MAX_FIELDS = 100
MAX_LINE_BYTES = 8192
CLIENT = peer_address("192.0.2.7", ())
OWN_LINES = (
    b"x-request-id: id-1\r\nx-forwarded-host: h\r\n"
    b"x-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: http\r\nvia: 1.1 pointsman\r\n\r\n"
)
"""What ends every head written for an endpoint on behalf of `CLIENT` that asked for host `h`."""


def request(raw: bytes, peer: ClientAddress = CLIENT) -> RequestHead:
    """The request head in `raw`, without the empty line."""
    return RequestParser(MAX_FIELDS, MAX_LINE_BYTES).parse(raw, peer)


def request_with(*lines: bytes, peer: ClientAddress = CLIENT) -> RequestHead:
    """A POST with these field lines after `host`."""
    return request(b"\r\n".join((b"POST /p HTTP/1.1", b"host: h", *lines)), peer)


def relayed_fields(head: RequestHead) -> list[bytes]:
    """The field lines that go to the endpoint as they came."""
    return b"\r\n".join(head.fields.values()).split(b"\r\n")


def written(head: RequestHead) -> bytes:
    """The head for an endpoint, with the request id `id-1`."""
    return write_request_head(head, head.body_bytes, b"id-1")


def response(raw: bytes, *, is_head: bool = False) -> ResponseHead:
    """The response head in `raw`, without the empty line."""
    return ResponseParser(MAX_FIELDS).parse(raw, is_head)


def response_with(*lines: bytes, is_head: bool = False) -> ResponseHead:
    """A 200 with these field lines."""
    return response(b"\r\n".join((b"HTTP/1.1 200 OK", *lines)), is_head=is_head)
