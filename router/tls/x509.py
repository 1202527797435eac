"""What a certificate says: its names, its dates, whose it is.

The standard library tells this of a peer's verified certificate only. Of our own it is read here
from the DER (X.690), which OpenSSL has accepted or is about to: what is odd is refused, nothing is
verified.
"""

import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, Final

_BLOCK: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----", re.ASCII
)
_SAN: Final = b"\x55\x1d\x11"  # 2.5.29.17, RFC 5280 section 4.2.1.6
_DNS_NAME: Final = 0x82
_IP_ADDRESS: Final = 0x87
_EXTENSIONS: Final = 0xA3
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_LONG: Final = 0x80

_SHORT: Final[Mapping[str, str]] = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "userId": "UID",
}
"""OpenSSL's names of attributes -> those of RFC 4514 section 3."""
_SAN_KINDS: Final[Mapping[str, str]] = {"IP Address": "IP"}

_SPECIAL: Final = frozenset('"+,;<>\\')

Item = tuple[int, bytes]
"""A tag and its content."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate of our own. `names` are DNS names (lower-case, `*.` allowed) and addresses."""

    names: tuple[str, ...]
    not_before_s: float
    not_after_s: float


@dataclass(frozen=True, slots=True)
class Identity:
    """A client's verified certificate.

    `subject` is its name as RFC 4514 writes it, most specific part first; `names` are its
    alternative names, each with its kind (`DNS:`, `URI:`, `IP:`, `email:`). Both are printable
    ASCII: other bytes are `\\` and two hex digits, so they can stand in a header.
    """

    subject: str
    names: tuple[str, ...]


NOBODY: Final = Identity("", ())


def blocks(pem: str) -> list[str]:
    """The certificates in a PEM file, each as PEM; what stands around them is left out."""
    return [str(match[0]) for match in _BLOCK.finditer(pem)]


def parse(block: str) -> Leaf:
    """Read one PEM certificate.

    Raises:
        ValueError: it is none.
    """
    try:
        ((_, certificate),) = _items(ssl.PEM_cert_to_DER_cert(block))
        (_, signed), *_ = _items(certificate)
        fields = [item for item in _items(signed) if item[0] != _VERSION]
        # RFC 5280 section 4.1: serial number, signature, issuer, validity, subject, key, ...
        (_, validity) = fields[3]
        not_before, not_after = _items(validity)
        names = [name for tag, content in fields if tag == _EXTENSIONS for name in _names(content)]
        return Leaf(tuple(names), _time_s(not_before), _time_s(not_after))
    except (IndexError, ValueError) as error:
        raise ValueError("not a certificate") from error


def identity(peer: Mapping[str, Any]) -> Identity:
    """Who a peer is, by what `ssl.SSLObject.getpeercert` says of its certificate."""
    relative = [
        "+".join(f"{_SHORT.get(kind, kind)}={_escaped(value)}" for kind, value in one)
        for one in reversed(peer.get("subject", ()))
    ]
    names = [
        f"{_SAN_KINDS.get(kind, kind)}:{_escaped(value)}"
        for kind, value in peer.get("subjectAltName", ())
        if isinstance(value, str)
    ]
    return Identity(",".join(relative), tuple(names))


def _items(der: bytes) -> Iterator[Item]:
    """The values that stand one after the other in `der` (X.690 section 8.1).

    Raises:
        ValueError: they do not fill it.
    """
    at = 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length >= _LONG:
            size = length - _LONG
            length, at = int.from_bytes(der[at : at + size], "big"), at + size
        if at + length > len(der):
            raise ValueError(f"a value of {length} bytes goes past the end")
        yield tag, der[at : at + length]
        at += length


def _names(extensions: bytes) -> Iterator[str]:
    ((_, listed),) = _items(extensions)
    for _, extension in _items(listed):
        (_, kind), *_, (_, value) = _items(extension)
        if kind != _SAN:
            continue
        ((_, names),) = _items(value)
        for tag, name in _items(names):
            if tag == _DNS_NAME:
                yield name.decode("ascii").lower()
            elif tag == _IP_ADDRESS:
                yield str(ip_address(name))


def _time_s(item: Item) -> float:
    """RFC 5280 section 4.1.2.5: two digits of a year before 50 are of this century."""
    tag, content = item
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = ("20" if text < "5" else "19") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _escaped(value: str) -> str:
    """RFC 4514 section 2.4, with everything that is not printable ASCII as hex pairs."""
    text = "".join(
        f"\\{char}" if char in _SPECIAL else char if 0x20 <= ord(char) < 0x7F else _hex(char)
        for char in value
    )
    if text[:1] in (" ", "#"):
        text = "\\" + text
    return text[:-1] + "\\ " if text.endswith(" ") and text != "\\ " else text


def _hex(char: str) -> str:
    return "".join(f"\\{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
