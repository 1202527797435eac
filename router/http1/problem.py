"""Our own answers: `application/problem+json` (RFC 9457), and the few plain ones on `/-/`."""

from http import HTTPStatus

import orjson

from router.errors import PROBLEM_TYPE_PREFIX, Refusal


def write_problem(
    refusal: Refusal,
    detail: str,
    request_id: bytes,
    *,
    date: bytes = b"",
    is_head: bool = False,
    close: bool = False,
) -> bytes:
    """The whole response. `detail` may come from outside: it is JSON-encoded, never a header.

    `date` is a whole line, ended by CRLF.
    """
    body = orjson.dumps(
        {
            "type": PROBLEM_TYPE_PREFIX + refusal.reason,
            "title": refusal.title,
            "status": refusal.status,
            "detail": detail,
            "request_id": request_id.decode("latin-1"),
        }
    )
    extra = date
    if request_id:
        extra += b"x-request-id: %b\r\n" % request_id
    if refusal.retry_after_s is not None:
        extra += b"retry-after: %d\r\n" % refusal.retry_after_s
    if refusal.allow is not None:
        extra += b"allow: %b\r\n" % refusal.allow.encode()
    return write_answer(
        refusal.status,
        b"application/problem+json",
        body,
        extra=extra,
        is_head=is_head,
        close=close or refusal.close,
    )


def write_answer(
    status: int,
    content_type: bytes,
    body: bytes,
    *,
    extra: bytes = b"",
    is_head: bool = False,
    close: bool = False,
) -> bytes:
    """A whole response of the router's own. `extra` is whole lines, each ended by CRLF."""
    return b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b%b\r\n%b" % (
        status,
        HTTPStatus(status).phrase.encode(),
        content_type,
        len(body),
        extra,
        b"connection: close\r\n" if close else b"",
        b"" if is_head else body,
    )
