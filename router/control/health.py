"""Active health checks: every endpoint of a backend with `health:`, one task each.

Owns what the checks say of each endpoint; tells its owner when that changes, never otherwise.

1. At the start of the program an endpoint counts as up: a restart must not take a fleet out. One
   that a reload adds counts as down until its first success, and is checked at once (`meet`).
2. It goes down after `unhealthy_after` failures in a row and comes up after `healthy_after`
   successes in a row; for one never seen healthy, one success is enough.
3. Intervals are jittered so that checks do not come in step; at most `CHECKS_MAX` run at a time.
   After a result that contradicts what is believed the next check comes after a fifth of the
   interval, and while a backend has no endpoint at all after a tenth: then every moment counts.
4. Over a reload an endpoint of the same backend and URL keeps what is believed about it.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from router import logs
from router.config.health import HealthCheck
from router.config.model import Config
from router.control.probe import Target

CHECKS_MAX: Final = 100
"""Checks in progress: they share one process with everything else that control does. With more
endpoints that hang than this, checks of others come later, never at the same time."""
MEET_S: Final = 0.8
"""How long a reload waits for the first checks of endpoints that it adds: whatever they do, the
change is in force within a second."""
PAUSE_MIN_S: Final = 0.05
"""Between two checks of an endpoint, whatever the haste."""
URGENT_RATE: Final = 100.0
"""Checks per second of a backend that has no endpoint: 3 to 5 % of a core."""
NOT_CHECKED: Final = "not checked yet"

log = logging.getLogger(__name__)

Probe = Callable[[Target], Awaitable[str | None]]
"""Check an endpoint: why it failed, or None."""

Place = tuple[str, str]
"""(backend, endpoint URL)."""


@dataclass(slots=True)
class Checked:
    """What the checks say of one endpoint."""

    check: HealthCheck
    is_up: bool
    since_s: float
    reason: str | None = None
    """Why the last check failed; None after a success or before the first."""
    streak: int = 0
    """Results in a row that contradict `is_up`."""
    is_new: bool = False
    """A reload added it, and it was not healthy yet."""
    has_passed: bool = False
    """A check succeeded; until then it is up for want of proof of the contrary only."""
    has_result: asyncio.Event = field(default_factory=asyncio.Event)

    def observe(self, failure: str | None, now_s: float) -> bool:
        """Take in a check's result. Returns whether the endpoint changed sides."""
        self.reason = failure
        self.has_result.set()
        self.has_passed |= failure is None
        if (failure is None) == self.is_up:
            self.streak = 0
            return False
        self.streak += 1
        if self.streak < self._needed():
            return False
        self.is_up, self.since_s, self.streak = not self.is_up, now_s, 0
        self.is_new = False
        return True

    def _needed(self) -> int:
        if self.is_up:
            return self.check.unhealthy_after
        return 1 if self.is_new else self.check.healthy_after


class Health:
    """Every checked endpoint of the config in force."""

    def __init__(
        self,
        on_change: Callable[[Place], None],
        probe: Probe,
        random: Random,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`on_change` is told who changed sides; `now` is seconds since 1970."""
        self.results: Counter[tuple[str, ...]] = Counter()
        """(backend, `success` or `failure`) -> checks made."""
        self._on_change = on_change
        self._probe = probe
        self._random = random
        self._now = now
        self._slots = asyncio.Semaphore(CHECKS_MAX)
        self._known: frozenset[Place] | None = None
        """Endpoints of the config in force, checked or not; None before the first."""
        self._checked: dict[Place, Checked] = {}
        self._tasks: dict[Place, asyncio.Task[None]] = {}

    async def meet(self, config: Config) -> None:
        """Check the endpoints that `config` adds; returns when each has a result, or `MEET_S` over.

        `adopt` must follow, with the config that is in force then.
        """
        added = [
            self._begin(place, check)
            for place, check in _checks(config).items()
            if place not in self._checked and self._is_added(place)
        ]
        waits = [asyncio.create_task(checked.has_result.wait()) for checked in added]
        if waits:
            _, late = await asyncio.wait(waits, timeout=MEET_S)
            for wait in late:
                wait.cancel()

    def adopt(self, config: Config) -> None:
        """Check the endpoints of `config` from now on, and no others."""
        checks = _checks(config)
        for place in self._checked.keys() - checks.keys():
            self._stop(place)
            del self._checked[place]
        for place, check in checks.items():
            checked = self._checked.get(place)
            if checked is None:
                self._begin(place, check)
            elif checked.check != check:
                checked.check = check
                self._start(place, checked)
        self._known = frozenset(places(config))

    def state_of(self, place: Place) -> Checked | None:
        """What the checks say of an endpoint; None when it is not checked."""
        return self._checked.get(place)

    async def close(self) -> None:
        """Stop checking."""
        tasks = list(self._tasks.values())
        for place in list(self._tasks):
            self._stop(place)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_added(self, place: Place) -> bool:
        return self._known is not None and place not in self._known

    def _begin(self, place: Place, check: HealthCheck) -> Checked:
        is_new = self._is_added(place)
        reason = NOT_CHECKED if is_new else None
        checked = Checked(check, not is_new, self._now(), reason, is_new=is_new)
        self._checked[place] = checked
        self._start(place, checked)
        return checked

    def _start(self, place: Place, checked: Checked) -> None:
        self._stop(place)
        self._tasks[place] = asyncio.create_task(
            self._watch(place, checked), name=f"health {place[1]}"
        )

    def _stop(self, place: Place) -> None:
        task = self._tasks.pop(place, None)
        if task is not None:
            task.cancel()

    async def _watch(self, place: Place, checked: Checked) -> None:
        """Check one endpoint for ever."""
        check = checked.check
        target = Target(*place, check)
        if not checked.is_new:
            await asyncio.sleep(check.interval * check.jitter * self._random.random())
        while True:
            async with self._slots:
                failure = await self._probe(target)
            self.results[place[0], "success" if failure is None else "failure"] += 1
            is_refused = checked.reason == NOT_CHECKED and failure is not None
            is_changed = checked.observe(failure, self._now())
            if is_changed:
                self._on_change(place)
            if is_changed or is_refused:
                _report(place, checked)
            jitter = self._random.uniform(1 - check.jitter, 1 + check.jitter)
            await asyncio.sleep(self._pause_s(place, checked) * jitter)

    def _pause_s(self, place: Place, checked: Checked) -> float:
        """Until the next check: less than the interval where an answer is wanted soon."""
        interval_s = pause_s = checked.check.interval
        if checked.streak:
            pause_s = interval_s / 5
        if not checked.is_up:
            peers = [one for (backend, _), one in self._checked.items() if backend == place[0]]
            if not any(peer.is_up for peer in peers):
                pause_s = max(interval_s / 10, len(peers) / URGENT_RATE)
        return min(max(pause_s, PAUSE_MIN_S), interval_s)


def places(config: Config) -> Iterable[Place]:
    """Every endpoint of `config`, in the order of the file."""
    for name, backend in config.backends.items():
        for endpoint in backend.endpoints:
            yield name, endpoint.url


def _checks(config: Config) -> dict[Place, HealthCheck]:
    checks = {name: backend.health for name, backend in config.backends.items()}
    return {place: check for place in places(config) if (check := checks[place[0]]) is not None}


def _report(place: Place, checked: Checked) -> None:
    logs.event(
        log,
        "endpoint_up" if checked.is_up else "endpoint_down",
        severity=logging.INFO if checked.is_up else logging.WARNING,
        backend=place[0],
        endpoint=place[1],
        **({} if checked.reason is None else {"reason": checked.reason}),
    )
