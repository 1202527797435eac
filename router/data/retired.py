"""Pools that no snapshot routes to any more, until the last request on them has ended.

1. A pool is replaced when its backend's config changes. Endpoints that stay go on in the new pool
   with their idle connections and what was learned about them.
2. What is in flight finishes where it began. On an endpoint that is gone from the config, or that
   drains, it has `drain_timeout` for that: a long stream or a WebSocket would stay for ever.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from weakref import ref

from router.data.bindings import Snapshot
from router.data.endpoint import EndpointPool, State
from router.data.pool import BackendPool


class Retired:
    """The retired pools of one worker."""

    def __init__(self, call_later: Callable[[float, Callable[[], None]], object]) -> None:
        """`call_later`: that of the loop."""
        self._call_later = call_later
        self._pools: list[BackendPool] = []
        self._shadow_pools: list[BackendPool] = []

    def replace(self, earlier: Snapshot, trial: Snapshot) -> None:
        """`trial` takes the place of `earlier`."""
        self._pools = _retire(self._pools, earlier.pools, trial.pools)
        self._shadow_pools = _retire(self._shadow_pools, earlier.shadow_pools, trial.shadow_pools)
        backends, timeout_s = trial.table.config.backends, trial.table.config.drain_timeout
        for pool in self._all():
            backend = backends.get(pool.name)
            staying = {item.url for item in backend.endpoints} if backend else set()
            for endpoint in pool.endpoints:
                if endpoint.url not in staying and not endpoint.is_leaving:
                    endpoint.is_leaving = True
                    self._call_later(timeout_s, partial(_cut, ref(endpoint)))

    def _all(self) -> list[BackendPool]:
        return [*self._pools, *self._shadow_pools]

    def cut(self, snapshot: Snapshot, backend: str, url: str) -> None:
        """End what an endpoint has in flight, in the pools in use and in those retired."""
        for pool in (*snapshot.pools_of(backend), *self._all()):
            for endpoint in pool.endpoints:
                if (pool.name, endpoint.url) == (backend, url):
                    endpoint.cut()

    def draining(self, snapshot: Snapshot) -> list[list[Any]]:
        """Rows of `messages.Stats.endpoints`: what is in flight on endpoints that drain."""
        self._pools = [pool for pool in self._pools if _is_busy(pool)]
        self._shadow_pools = [pool for pool in self._shadow_pools if _is_busy(pool)]
        pools = snapshot.all_pools()
        rows: dict[tuple[str, str], int] = {
            (pool.name, endpoint.url): 0
            for pool in pools
            for endpoint in pool.endpoints
            if endpoint.state is State.DRAIN
        }
        for pool in [*pools, *self._all()] if rows else ():
            for endpoint in pool.endpoints:
                if (pool.name, endpoint.url) in rows:
                    rows[pool.name, endpoint.url] += endpoint.busy
        return [[backend, url, in_flight] for (backend, url), in_flight in rows.items()]


def _retire(
    retired: list[BackendPool], old: Mapping[str, BackendPool], new: Mapping[str, BackendPool]
) -> list[BackendPool]:
    """The retired pools from now on: those of `old` that are not in `new`, as long as they work."""
    retired = list(retired)
    for name, pool in old.items():
        heir = new.get(name)
        if heir is pool:
            continue
        retired.append(pool)
        for former in retired:  # the earlier ones too: none must hold on to one in between
            if former.name == name:
                former.hand_over(heir)
        if heir is not None:
            heir.membership.remember(pool)
        pool.retire()
    return [pool for pool in retired if _is_busy(pool)]


def _cut(of: ref[EndpointPool]) -> None:
    """A weak reference, for a timer must not keep what has long ended."""
    endpoint = of()
    if endpoint is not None:
        endpoint.cut()


def _is_busy(pool: BackendPool) -> bool:
    return bool(pool.pending) or any(endpoint.busy for endpoint in pool.endpoints)
