"""What control believes of each endpoint: the one place that says so to workers and to operators.

Joins five sources: health checks, addresses, operators who drain, rollouts whose turn an endpoint
is not, and workers who eject. Strategy:

1. Workers hear of an endpoint only what differs from what they were told (`_told`). A new config
   carries the states of its endpoints (`states`); what changed while workers built it is told when
   it is adopted.
2. An operator's word wins: an endpoint that is drained stays so whatever its checks say, as long as
   it is in the file.
3. Ejections are the workers' own; they are shown here and never told back.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any

from router import logs
from router.config.model import Config
from router.control.health import Checked, Health, Place, Probe, places
from router.control.resolver import LookUp, Resolved, Resolver, host_of
from router.messages import Ejection, EndpointState, Stats

log = logging.getLogger(__name__)


class State(StrEnum):
    """What an operator sees. `ejected` by at least one worker; only `up` gets new requests."""

    UP = "up"
    DOWN = "down"
    DRAINING = "draining"
    EJECTED = "ejected"


@dataclass(frozen=True, slots=True)
class Belief:
    """What is believed of one endpoint at this moment. Times are seconds since 1970."""

    state: State
    since_s: float | None
    """None for an endpoint that nothing was ever heard of."""
    reason: str | None
    checked: Checked | None
    resolved: Resolved | None
    ejected_by: int
    """Workers that eject it."""
    in_flight: int | None
    """Requests on it, all workers together; known while it drains and all of them have told."""


class Endpoints:
    """Every endpoint of the config in force."""

    def __init__(
        self,
        push: Callable[[EndpointState], None],
        probe: Probe,
        look_up: LookUp,
        random: Random,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`push` tells all workers; `now` is seconds since 1970."""
        self.health = Health(self._tell, probe, random, now)
        self.resolver = Resolver(self._tell_host, look_up, random, now)
        self._push = push
        self._now = now
        self._config: Config | None = None
        self._resolves: dict[Place, bool] = {}
        """The endpoints of the config in force: whether their names are looked up."""
        self._told: dict[Place, EndpointState] = {}
        self._offered: dict[Place, EndpointState] = {}
        """What a config that is not in force yet tells."""
        self._drained: dict[Place, float] = {}
        """Since when."""
        self._idle: dict[str, dict[Place, float]] = {}
        """By route: endpoints that its rollout keeps idle, and since when."""
        self._ejections: dict[Place, dict[int, tuple[Ejection, float]]] = {}
        """By worker: what it said last, and when that began."""
        self._in_flight: dict[int, dict[Place, int]] = {}
        """By worker: requests on endpoints that drain, as it told last."""

    # config

    async def meet(self, config: Config) -> None:
        """Check what `config` adds, so that what is healthy gets traffic as soon as it is in force.

        `adopt` must follow, with the config that is in force then.
        """
        await self.health.meet(config)

    def states(self, config: Config) -> dict[str, dict[str, list[Any]]]:
        """What workers need to know of the endpoints of `config`; see `messages.Prepare`."""
        known = {
            place: self._state(place, bool(config.backends[place[0]].resolve))
            for place in places(config)
        }
        if config is not self._config:
            self._offered = known
        states: dict[str, dict[str, list[Any]]] = {}
        for (backend, url), state in known.items():
            if state.state != "up" or state.addresses:
                states.setdefault(backend, {})[url] = [state.state, state.addresses]
        return states

    def adopt(self, config: Config) -> None:
        """`config` is in force: look after its endpoints from now on, and no others."""
        before = {**self._offered, **self._told}
        known = tuple(places(config))
        self._config, self._offered = config, {}
        self._resolves = {place: bool(config.backends[place[0]].resolve) for place in known}
        self._told = {place: before[place] for place in known if place in before}
        self._drained = {place: self._drained[place] for place in known if place in self._drained}
        for place in self._ejections.keys() - set(known):
            del self._ejections[place]
        self.health.adopt(config)
        self.resolver.adopt(config)
        for place in known:
            self._tell(place)

    async def close(self) -> None:
        """Stop checking and looking up."""
        await self.health.close()
        await self.resolver.close()

    # telling workers

    def _state(self, place: Place, resolves: bool) -> EndpointState:
        checked = self.health.state_of(place)
        state = "down" if checked is not None and not checked.is_up else "up"
        if self._kept_off(place) is not None:
            state = "drain"
        resolved = self.resolver.state_of(place[1]) if resolves else None
        return EndpointState(*place, state, [] if resolved is None else [*resolved.addresses])

    def _tell(self, place: Place) -> None:
        if place not in self._resolves:
            return  # of a config that is not in force yet
        state = self._state(place, self._resolves[place])
        if self._told.get(place) != state:
            self._told[place] = state
            self._push(state)

    def _tell_host(self, host: str) -> None:
        for place in self._resolves:
            if host_of(place[1]) == host:
                self._tell(place)

    # drain

    def drain(self, place: Place) -> bool:
        """Give an endpoint nothing new. Returns whether that is a change."""
        if place in self._drained:
            return False
        self._drained[place] = self._now()
        logs.event(log, "endpoint_drained", backend=place[0], endpoint=place[1])
        self._tell(place)
        return True

    def undrain(self, place: Place) -> bool:
        """Use an endpoint again. Returns whether that is a change."""
        if self._drained.pop(place, None) is None:
            return False
        logs.event(log, "endpoint_undrained", backend=place[0], endpoint=place[1])
        self._tell(place)
        return True

    def set_idle(self, route: str, places: frozenset[Place]) -> None:
        """The rollout of a route keeps these endpoints idle from now on, and no others.

        Workers are told as when an operator drains: they finish what they have, get nothing new.
        """
        before = self._idle.pop(route, {})
        if places:
            now_s = self._now()
            self._idle[route] = {place: before.get(place, now_s) for place in places}
        for place in before.keys() ^ places:
            self._tell(place)

    def _kept_off(self, place: Place) -> tuple[str, float] | None:
        """Why an endpoint gets nothing new though it may be healthy, and since when."""
        if place in self._drained:
            return "drained", self._drained[place]
        for route, idle in self._idle.items():
            if place in idle:
                return f"not in turn: rollout of {route}", idle[place]
        return None

    def is_ready(self, place: Place) -> bool:
        """Whether an endpoint could take requests, were it its turn: a check has shown it healthy
        (or it is not checked at all), nobody drained it, and no worker ejects it."""
        checked = self.health.state_of(place)
        is_healthy = checked is None or (checked.is_up and checked.has_passed)
        is_free = place not in self._drained and not self._ejected(place)
        return place in self._resolves and is_healthy and is_free

    def takes_requests(self, place: Place) -> bool:
        """Whether an endpoint gets new requests, as far as control has a say in it."""
        return self._state(place, resolves=False).state == "up"

    # what workers tell

    def on_ejection(self, worker: int, ejection: Ejection) -> None:
        """A worker took an endpoint out, or back in."""
        place = ejection.backend, ejection.url
        by_worker = self._ejections.setdefault(place, {})
        if ejection.is_ejected:
            _, since_s = by_worker.get(worker, (ejection, self._now()))
            by_worker[worker] = ejection, since_s
        else:
            by_worker.pop(worker, None)
        if not by_worker:
            del self._ejections[place]
        logs.event(
            log,
            "endpoint_ejected" if ejection.is_ejected else "endpoint_taken_back",
            severity=logging.WARNING if ejection.is_ejected else logging.INFO,
            backend=ejection.backend,
            endpoint=ejection.url,
            worker=worker,
            reason=ejection.reason,
        )

    def on_stats(self, worker: int, stats: Stats) -> None:
        """A worker told how much is in flight on endpoints that drain."""
        self._in_flight[worker] = {(backend, url): n for backend, url, n in stats.endpoints}

    def forget_worker(self, worker: int) -> None:
        """It is gone, and what it ejected and held with it."""
        self._in_flight.pop(worker, None)
        for place in list(self._ejections):
            self._ejections[place].pop(worker, None)
            if not self._ejections[place]:
                del self._ejections[place]

    # telling operators

    def all(self) -> Iterator[tuple[Place, Belief]]:
        """Every endpoint of the config in force."""
        for place in self._resolves:
            yield place, self.belief(place)

    def belief(self, place: Place) -> Belief:
        """What is believed of an endpoint."""
        checked = self.health.state_of(place)
        resolved = self.resolver.state_of(place[1]) if self._resolves.get(place) else None
        ejections = self._ejected(place)
        return Belief(
            *self._head(place, checked, ejections),
            checked,
            resolved,
            len(ejections),
            self._on_drained(place),
        )

    def _head(
        self, place: Place, checked: Checked | None, ejections: list[tuple[Ejection, float]]
    ) -> tuple[State, float | None, str | None]:
        """State, since when, and why: the first of these that holds."""
        is_down = checked is not None and not checked.is_up
        if (kept := self._kept_off(place)) is not None:
            reason, since_s = kept
            failure = checked.reason if checked is not None and is_down else None
            suffix = "" if failure is None else f"; its checks fail: {failure}"
            return State.DRAINING, since_s, reason + suffix
        if checked is not None and is_down:
            return State.DOWN, checked.since_s, checked.reason
        if ejections:
            first, since_s = min(ejections, key=lambda one: one[1])
            return State.EJECTED, since_s, first.reason
        if checked is not None:
            return State.UP, checked.since_s, checked.reason
        return State.UP, None, None

    def _ejected(self, place: Place) -> list[tuple[Ejection, float]]:
        now_s = self._now()
        known = self._ejections.get(place, {}).values()
        return [one for one in known if one[0].until_s > now_s]

    def _on_drained(self, place: Place) -> int | None:
        counts = [told.get(place) for told in self._in_flight.values()]
        if not counts or None in counts or self._kept_off(place) is None:
            return None
        return sum(count for count in counts if count is not None)
