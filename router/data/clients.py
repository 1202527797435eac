"""Who is connected to this worker, how many they are, and what is known of their addresses.

Owns the set of client connections and its bounds; must not look into what they say.
"""

from typing import TYPE_CHECKING, Final

from router.config.model import Downstream as Limits
from router.data.stats import WorkerStats
from router.errors import TOO_MANY_CONNECTIONS
from router.http1.forwarded import ClientAddress, Network, peer_address
from router.tls.x509 import NOBODY, Identity

if TYPE_CHECKING:
    from router.data.downstream import Downstream

_SURPLUS_MAX: Final = 256
"""Connections past the bound that are still read, to answer 503, or a health check."""
_PEERS_MAX: Final = 10_000


class Clients:
    """The client connections of one worker."""

    def __init__(self, stats: WorkerStats) -> None:
        self.connections: set[Downstream] = set()
        self._stats = stats
        self._by_address: dict[str, int] = {}
        self._networks: tuple[Network, ...] = ()
        self._peers: dict[tuple[str, Identity | None], ClientAddress] = {}

    def __repr__(self) -> str:
        return f"<Clients [{len(self.connections)} from {len(self._by_address)} addresses]>"

    def trust(self, networks: tuple[Network, ...]) -> None:
        """From now on believe peers in `networks` about whom they speak for."""
        if networks != self._networks:
            self._networks = networks
            self._peers.clear()

    def peer_of(self, host: str, identity: Identity | None) -> ClientAddress:
        """What is known of a client; remembered, within a bound.

        `identity` is that of its certificate, empty when it has none; without TLS None.
        """
        peer = self._peers.get((host, identity))
        if peer is None:
            if len(self._peers) >= _PEERS_MAX:
                self._peers.clear()
            known = identity or NOBODY
            peer = peer_address(
                host,
                self._networks,
                is_tls=identity is not None,
                subject=known.subject,
                names=known.names,
            )
            self._peers[host, identity] = peer
        return peer

    def enter(self, downstream: "Downstream", limits: Limits) -> bool:
        """A client connected. True when that is one too many: it may ask for health only."""
        address = downstream.peer.client
        self._by_address[address] = count = self._by_address.get(address, 0) + 1
        self.connections.add(downstream)
        open_now = len(self.connections)
        per_client = limits.connections_per_client
        is_surplus = open_now > limits.connections or (
            per_client is not None and count > per_client
        )
        self._stats.counters[("pointsman_downstream_connections_accepted_total",)] += 1
        if is_surplus and open_now > limits.connections + _SURPLUS_MAX:
            self._stats.count_refusal(TOO_MANY_CONNECTIONS)
            downstream.transport.abort()
        return is_surplus

    def leave(self, downstream: "Downstream") -> None:
        """A client's connection is gone. One that failed before it entered is not known here."""
        if downstream not in self.connections:
            return
        self.connections.remove(downstream)
        address = downstream.peer.client
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    def close_idle(self, served_s: float = 0.0, fresh_s: float = 0.0) -> None:
        """Close connections that have been between requests, or come, at least so long ago."""
        for downstream in list(self.connections):
            downstream.close_if_idle(served_s, fresh_s)
