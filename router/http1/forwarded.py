"""Who the client is, and the forwarding fields that tell endpoints.

`x-forwarded-for`, `-proto` and `-host` of a client are believed only when its address lies in
`trusted_proxies`; otherwise they are taken out and ours put in their place. `via` only grows
(RFC 9110 section 7.6.3). What is constant for a connection is written once, when it is accepted.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from router.http1.fields import OTHER_FORWARDED, Fields, index_others, value_of, values_of

if TYPE_CHECKING:
    from router.http1.request_head import RequestHead

VIA: Final = b"1.1 pointsman"
"""RFC 9110 section 7.6.3: the protocol version received, and a pseudonym."""
_VIA_HTTP10: Final = b"1.0 pointsman"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class ClientAddress:
    """A connection's peer. `forwarded` is ready lines (each ended by CRLF) for an endpoint."""

    client: str
    is_trusted: bool
    networks: tuple[Network, ...]
    forwarded: bytes
    proto: bytes = b"http"
    client_cert: str = ""
    client_names: tuple[str, ...] = ()
    certificate_lines: bytes = b""
    """Those of `forwarded` that tell of the certificate."""


def peer_address(
    host: str,
    networks: Sequence[Network],
    *,
    is_tls: bool = False,
    subject: str = "",
    names: tuple[str, ...] = (),
) -> ClientAddress:
    """What holds for every request of a connection from `host`.

    `subject` and `names` are those of its certificate, in printable ASCII.
    """
    trusted = is_within(host, networks)
    proto = b"https" if is_tls else b"http"
    lines = b"x-client-cert-subject: %b\r\n" % subject.encode("ascii") if subject else b""
    if names:
        lines += b"x-client-cert-san: %b\r\n" % ", ".join(names).encode("ascii")
    forwarded = b"x-forwarded-for: %b\r\nx-forwarded-proto: %b\r\nvia: %b\r\n%b" % (
        host.encode("ascii", "replace"),
        proto,
        VIA,
        lines,
    )
    return ClientAddress(host, trusted, tuple(networks), forwarded, proto, subject, names, lines)


def is_within(host: str, networks: Sequence[Network]) -> bool:
    """True when `host` is an address inside one of `networks`; IPv4-mapped IPv6 counts as IPv4."""
    if not networks:
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)


def client_address(head: "RequestHead", fields: Fields, peer: ClientAddress) -> None:
    """Take the forwarding fields out of `fields` and set `head.client` and `head.forwarded`."""
    given_for = fields.pop(b"x-forwarded-for", None)
    given_proto = fields.pop(b"x-forwarded-proto", None)
    given_host = fields.pop(b"x-forwarded-host", None)
    fields.pop(b"forwarded", None)
    given_via = fields.pop(b"via", None)
    others = fields.pop(OTHER_FORWARDED, None)
    if not peer.is_trusted:
        fields.pop(b"x-real-ip", None)
    elif others is not None:
        fields.update(index_others(others))
    is_believed = peer.is_trusted and (given_for or given_proto or given_host)
    if not (is_believed or given_via or head.is_http10):
        return
    chain: list[bytes] = []
    proto = peer.proto
    if peer.is_trusted:
        if given_for is not None:
            chain = [
                hop
                for hop in value_of(b"x-forwarded-for", given_for).replace(b" ", b"").split(b",")
                if hop
            ]
            head.client = _first_untrusted(chain, peer)
        if given_proto is not None:
            given = value_of(b"x-forwarded-proto", given_proto)
            proto = b"https" if given == b"https" else b"http"
        if given_host is not None:
            host = value_of(b"x-forwarded-host", given_host)
            head.forwarded_host = b"x-forwarded-host: %b\r\n" % host
    vias = list(filter(None, values_of(b"via", given_via))) if given_via is not None else []
    head.forwarded = b"x-forwarded-for: %b\r\nx-forwarded-proto: %b\r\nvia: %b\r\n%b" % (
        b", ".join([*chain, peer.client.encode("ascii", "replace")]),
        proto,
        b", ".join([*vias, _VIA_HTTP10 if head.is_http10 else VIA]),
        peer.certificate_lines,
    )


def _first_untrusted(chain: list[bytes], peer: ClientAddress) -> str:
    """The address nearest to us that is not a trusted proxy; the farthest when all are."""
    client = peer.client
    for hop in reversed(chain):
        text = hop.decode("latin-1")
        try:
            ipaddress.ip_address(text)
        except ValueError:
            break
        client = text
        if not is_within(text, peer.networks):
            break
    return client
