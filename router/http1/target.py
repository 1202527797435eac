"""Where a request goes: the request line and the host (RFC 9112 section 3).

Owns the grammar of both. Pure functions of the bytes; `RequestParser` remembers their results.
"""

import re
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from router.errors import MALFORMED, METHOD_REFUSED, VERSION_UNSUPPORTED, HeadError

_REQUEST_LINE: Final = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])\Z"
)
_ABSOLUTE: Final = re.compile(rb"http://([^/?#]*)([/?].*)?\Z", re.IGNORECASE)
_HOST: Final = re.compile(
    rb"((?:[A-Za-z0-9_.~!$&'()*+,;=%-]+)|\[[0-9A-Fa-f:.]+\])(?::([0-9]{0,5}))?\Z"
)

_REFUSED_METHODS: Final = frozenset((b"CONNECT", b"TRACE"))


class RequestLine(NamedTuple):
    """A request line. `authority` is empty unless the target was in absolute form."""

    method: bytes
    target: bytes
    path: bytes
    minor: int
    authority: bytes
    relayed: bytes


def parse_request_line(raw: bytes) -> RequestLine:
    """`raw` as a request line.

    Raises:
        HeadError: it is malformed, of another major version, or of a method that is not relayed.
    """
    match = _REQUEST_LINE.match(raw)
    if match is None:
        raise HeadError(MALFORMED, "the request line is not 'METHOD target HTTP/1.1'")
    method, target, major, minor = match.groups()
    if major != b"1":
        raise HeadError(
            VERSION_UNSUPPORTED, f"HTTP/{major.decode()}.{minor.decode()} was asked for"
        )
    if method in _REFUSED_METHODS:
        raise HeadError(METHOD_REFUSED, f"{method.decode()} is not relayed")
    return _split_target(method, target, min(int(minor), 1))


def _split_target(method: bytes, target: bytes, minor: int) -> RequestLine:
    """RFC 9112 section 3.2: origin-form, absolute-form (relayed as origin-form) or `OPTIONS *`."""
    authority = b""
    relayed = target
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        pass
    elif match := _ABSOLUTE.match(target):
        authority = match[1]
        if not authority:
            raise HeadError(MALFORMED, "the request target has no host")
        relayed = match[2] or (b"*" if method == b"OPTIONS" else b"/")  # section 3.2.4
        if relayed.startswith(b"?"):
            relayed = b"/" + relayed
    else:
        raise HeadError(MALFORMED, "the request target is not a path")
    if b"#" in relayed:
        raise HeadError(MALFORMED, "the request target has a fragment")
    path = relayed.partition(b"?")[0]
    return RequestLine(
        method, relayed, path, minor, authority, b"%b %b HTTP/1.1" % (method, relayed)
    )


def query_value(target: bytes, name: bytes) -> bytes | None:
    """The first parameter of that name in the query of `target`, or None.

    Read as forms write it (WHATWG URL Standard, `application/x-www-form-urlencoded` parsing): `+`
    is a space, `%` and two hex digits are a byte, a name without `=` has an empty value.
    """
    for pair in target.partition(b"?")[2].split(b"&"):
        key, _, value = pair.partition(b"=")
        if pair and _decoded(key) == name:
            return _decoded(value)
    return None


def _decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))


def parse_host(line: bytes) -> bytes:
    """The host in a `host` field line, lower-case, without port; empty when the value is.

    Raises:
        HeadError: it is not a host and port (RFC 9112 section 3.2).
    """
    value = line[5:].strip(b" \t")
    if not value:
        return b""  # RFC 9112 section 3.2 allows an empty one when the target has no authority
    match = _HOST.match(value)
    if match is None or int(match[2] or 0) > 65535:
        raise HeadError(MALFORMED, "header host is not a host and port")
    return match[1].lower().removesuffix(b".")
