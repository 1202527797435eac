"""`override:`, a header with which a tester chooses the variant, and from where it is honoured.

Owns the header's words and the addresses that may use it. Anything that is not a known word from an
allowed address is as if it were not there: a client learns nothing from a refused override.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from router.messages import Decision, Request
from router.policies.base import Assignment
from router.policies.sticky import HeaderName
from router.strict import Model

_LOOPBACK: Final = ("127.0.0.0/8", "::1/128")
_PRIVATE: Final = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")  # RFC 1918, 4193
_ANY: Final = ("0.0.0.0/0", "::/0")
_CLIENTS_MAX: Final = 4096

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError:
        raise ValueError(
            f"{value!r} is not a source, write any, private, loopback, or a network like 10.0.0.0/8"
        ) from None
    return value


def _source(value: str) -> str:
    return value if value in ("any", "private", "loopback") else _network(value)


Source = Annotated[str, AfterValidator(_source)]


class Override(Model):
    """A request header that chooses the variant."""

    header: HeaderName
    """Name of the header. Its value is a variant's name; for a canary also `always` or `never`."""
    allow_from: Annotated[tuple[Source, ...], Field(min_length=1)] = ("loopback", "private")
    """Client addresses it is honoured from: networks, or the words any, private, loopback."""

    def build(self, inner: Assignment, decisions: Mapping[bytes, Decision]) -> Assignment:
        """`inner`, except for requests whose header is a key of `decisions`."""
        return _Overridden(inner, self.header.encode(), decisions, AllowedClients(self.allow_from))


class AllowedClients:
    """Whether a client's address lies in one of some networks."""

    def __init__(self, sources: Iterable[str]) -> None:
        named = {"loopback": _LOOPBACK, "private": _PRIVATE, "any": _ANY}
        self._is_any = "any" in (sources := tuple(sources))
        self._networks: tuple[_Network, ...] = tuple(
            ipaddress.ip_network(network)
            for source in sources
            for network in named.get(source, (source,))
        )
        # Parsing an address takes 20 times longer than finding it here.
        self._known: dict[str, bool] = {}

    def __contains__(self, client: str) -> bool:
        if self._is_any:
            return True
        known = self._known.get(client)
        if known is None:
            if len(self._known) >= _CLIENTS_MAX:
                self._known.clear()
            known = self._known[client] = self._is_allowed(client)
        return known

    def _is_allowed(self, client: str) -> bool:
        try:
            address = ipaddress.ip_address(client)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)


class _Overridden:
    """An assignment that obeys the header first."""

    def __init__(
        self,
        inner: Assignment,
        header: bytes,
        decisions: Mapping[bytes, Decision],
        allowed: AllowedClients,
    ) -> None:
        self.weights = inner.weights
        self._otherwise = inner.assign
        self._header = header
        self._decisions = decisions
        self._allowed = allowed

    def assign(self, request: Request, u: float) -> Decision:
        value = request.header(self._header)
        if value is not None:
            decision = self._decisions.get(value)
            if decision is not None and request.client in self._allowed:
                return decision
        return self._otherwise(request, u)
