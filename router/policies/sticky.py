"""`sticky:`, the identity an assignment sticks to, and how it is read from a request.

Owns where a unit comes from and the cookie that carries one. It must not know which variant a unit
gets (`hashing.py`) nor what happens to a request without one (`weighted.py`).
"""

import re
from collections.abc import Callable
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema, model_validator

from router.messages import Request
from router.strict import Model
from router.units import Duration

UNIT_MAX_BYTES: Final = 256
"""A longer value is no unit: it is a document (a token that is renewed), not an identity."""

# RFC 9110 section 5.6.2, RFC 6265 section 4.1.1: a token
_NAME_PATTERN: Final = r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}$"
_NameSchema: Final = WithJsonSchema({"type": "string", "pattern": _NAME_PATTERN})


def _header_name(value: str) -> str:
    if not re.fullmatch(_NAME_PATTERN, value):
        raise ValueError(f"{value!r} is not a header name")
    return value.lower()


def _cookie_name(value: str) -> str:
    if not re.fullmatch(_NAME_PATTERN, value):
        raise ValueError(f"{value!r} is not a cookie name")
    return value


HeaderName = Annotated[str, AfterValidator(_header_name), _NameSchema]
CookieName = Annotated[str, AfterValidator(_cookie_name), _NameSchema]


class Sticky(Model):
    """Where the unit comes from: exactly one of `header`, `cookie`, `client_ip`, `client_cert`."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": [source]}
                for source in ("header", "cookie", "client_ip", "client_cert")
            ]
        }
    )

    header: HeaderName | None = None
    """Request header whose value is the unit."""
    cookie: CookieName | None = None
    """Cookie whose value is the unit; issued to clients that come without it."""
    client_ip: Literal[True] | None = None
    """The client's address is the unit."""
    client_cert: Literal[True] | None = None
    """The subject of the client's certificate is the unit, or the first of its other names."""
    max_age: Annotated[Duration, Field(ge=1)] = 30 * 86400.0
    """How long a client keeps an issued cookie. Only with `cookie`."""
    secure: bool = False
    """Issue the cookie for https only. Only with `cookie`."""

    @model_validator(mode="after")
    def _one_source(self) -> "Sticky":
        sources = (self.header, self.cookie, self.client_ip, self.client_cert)
        if sum(source is not None for source in sources) != 1:
            raise ValueError("sticky has exactly one of header, cookie, client_ip, client_cert")
        if self.cookie is None and self.model_fields_set & {"max_age", "secure"}:
            raise ValueError("max_age and secure are properties of a cookie, this has none")
        return self

    def build(self) -> Callable[[Request], bytes | None]:
        """A function from a request to its unit; empty or None is: it has none."""
        if self.header is not None:
            return _from_header(self.header.encode())
        if self.cookie is not None:
            return _from_cookie(self.cookie.encode())
        return _from_certificate if self.client_cert else _from_client

    def set_cookie(self) -> tuple[bytes, bytes] | None:
        """What stands before and after a unit in `set-cookie`, or None: units are not issued."""
        if self.cookie is None:
            return None
        secure = "; Secure" if self.secure else ""
        attributes = f"; Path=/; Max-Age={int(self.max_age)}; HttpOnly; SameSite=Lax{secure}"
        return self.cookie.encode() + b"=", attributes.encode()


def _from_header(name: bytes) -> Callable[[Request], bytes | None]:
    def unit(request: Request) -> bytes | None:
        value = request.header(name)
        return value if value is not None and len(value) <= UNIT_MAX_BYTES else None

    return unit


def _from_cookie(name: bytes) -> Callable[[Request], bytes | None]:
    def unit(request: Request) -> bytes | None:
        value = request.cookie(name)
        return value if value is not None and len(value) <= UNIT_MAX_BYTES else None

    return unit


def _from_client(request: Request) -> bytes | None:
    return request.client.encode("utf-8", "backslashreplace")


def _from_certificate(request: Request) -> bytes | None:
    subject = request.client_cert or next(iter(request.client_names), "")
    return subject.encode() or None
