"""Receipts: signed tokens that tie a reward to the exposure it is about.

A receipt is `base64url(payload + tag)`: the payload names route, variant, propensity, time and a
nonce; the tag is HMAC-SHA-256 cut to 16 bytes (RFC 2104 section 5 allows truncation to half).
Any replica that holds the key can verify it without having seen the request.
"""

import base64
import hmac
import struct
from dataclasses import dataclass
from typing import Final

_VERSION: Final = 1
_FIXED: Final = struct.Struct(">BIf8s")  # version, time (s since 1970), propensity, nonce
_TAG_BYTES: Final = 16
_TOKEN_MAX_CHARS: Final = 512


@dataclass(frozen=True, slots=True)
class Receipt:
    """One exposure. `issued_s` is seconds since 1970; `nonce` is unique per receipt (hex)."""

    route: str
    variant: str
    propensity: float
    issued_s: int
    nonce: str


def names_of(route: str, variant: str) -> bytes:
    """The part of a payload that is constant for a (route, variant): build it before traffic."""
    return f"{route}\0{variant}".encode()


def issue(key: bytes, names: bytes, propensity: float, issued_s: int, nonce: bytes) -> bytes:
    """A token. `names` comes from `names_of`; `nonce` is 8 bytes that never repeat under a key."""
    payload = _FIXED.pack(_VERSION, issued_s, propensity, nonce) + names
    return base64.urlsafe_b64encode(payload + hmac.digest(key, payload, "sha256")[:_TAG_BYTES])


def verify(key: bytes, token: str) -> Receipt | None:
    """The exposure a token speaks of, or None when not exactly this was issued under `key`."""
    if len(token) > _TOKEN_MAX_CHARS:
        return None
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
    except ValueError:  # not ASCII, not base64
        return None
    if base64.urlsafe_b64encode(raw) != token.encode():
        return None  # RFC 4648 section 3.5: other spellings of the same bytes
    payload, tag = raw[:-_TAG_BYTES], raw[-_TAG_BYTES:]
    if len(payload) <= _FIXED.size:
        return None
    if not hmac.compare_digest(hmac.digest(key, payload, "sha256")[:_TAG_BYTES], tag):
        return None
    version, issued_s, propensity, nonce = _FIXED.unpack_from(payload)
    if version != _VERSION:
        return None
    route, _, variant = payload[_FIXED.size :].decode("utf-8").partition("\0")
    return Receipt(route, variant, propensity, issued_s, nonce.hex())
