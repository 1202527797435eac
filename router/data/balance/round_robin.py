"""`round_robin`: one endpoint after the other, each as often as its weight says, evenly spread.

An endpoint has a turn each 1 / weight of a virtual time, and the earliest turn is next: 3:1 is
`a a b a`, equal weights go in circles.

1. Endpoints of one weight divide the time between them, or they would come in a burst:
   beside one of weight 5, two of weight 1 make `a b a a a c a`.
2. A change of the set or of weights keeps the part of the wait that each endpoint has behind it:
   one that comes and goes does not send everybody back to the start.
3. Workers start at different places, or the first endpoint would get the first request of each.

A heap, as in Envoy's EDF scheduler; nginx's smooth round robin spreads as evenly, but looks at
every endpoint each time.
"""

from collections import Counter
from collections.abc import Callable
from heapq import heapify, heapreplace
from math import ceil
from typing import Generic

from router.data.balance.base import T


class RoundRobin(Generic[T]):
    """Weighted turns. Cost of a pick: O(log n)."""

    needs_latency = False

    def __init__(self, start: float = 0.0) -> None:
        """`start` in [0, 1): where in the first circle to begin."""
        self._start = start
        self._now = 0.0
        """Virtual time: that of the last turn."""
        self._turns: list[tuple[float, int, float, T]] = []
        """A heap of (when, rank, 1 / weight, target); ranks differ, so targets never compare."""

    def adopt(self, targets: tuple[T, ...]) -> None:
        waits = {turn[3].url: (turn[0] - self._now) / turn[2] for turn in self._turns}
        if not waits and targets:
            self._now = self._start / min(target.weight for target in targets)
            waits = _first_waits(targets, self._now)
        self._turns = [
            (
                self._now + waits.get(target.url, 0.5) / target.weight,
                rank,
                1 / target.weight,
                target,
            )
            for rank, target in enumerate(targets)
        ]
        heapify(self._turns)

    def pick(self, random: Callable[[], float], key: bytes) -> T:
        turns = self._turns
        when, rank, period, target = turns[0]
        self._now = when
        heapreplace(turns, (when + period, rank, period, target))
        return target

    def observe(self, target: T, elapsed_s: float, now_s: float) -> None:
        pass


def _first_waits(targets: tuple[T, ...], now: float) -> dict[str, float]:
    """URL -> how many of its periods it has to wait. Of m endpoints of one weight the k-th has its
    turns at (k + 0.5) / m periods and whole ones more."""
    alike = Counter(target.weight for target in targets)
    seen: Counter[float] = Counter()
    waits = {}
    for target in targets:
        first = (seen[target.weight] + 0.5) / alike[target.weight]
        seen[target.weight] += 1
        passed = now * target.weight
        waits[target.url] = first + ceil(passed - first) - passed
    return waits
