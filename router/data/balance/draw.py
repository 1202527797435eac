"""Endpoints at random, by weight: one, or two to choose from."""

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate, permutations
from typing import Final, Generic

from router.data.balance.base import T

_PAIRED_MAX: Final = 32
"""Up to as many targets of one weight every pair is made beforehand, 992 in all: half the cost of
a pick (0.19 instead of 0.37 us, `python -m benchmarks.balancing`)."""


class Draw(Generic[T]):
    """Draws from fixed targets. Cost: O(1) when all weigh the same, else O(log n)."""

    __slots__ = ("_cumulative", "_pairs", "_targets")

    def __init__(self, targets: tuple[T, ...]) -> None:
        count = len(targets)
        weights = [target.weight for target in targets]
        is_even = count > 1 and len(set(weights)) == 1
        self._targets = targets
        self._cumulative = None if is_even else list(accumulate(weights))
        self._pairs: list[tuple[T, ...]] = (
            list(permutations(targets, 2)) if is_even and count <= _PAIRED_MAX else []
        )

    def one(self, random: Callable[[], float]) -> T:
        """A target."""
        targets, cumulative = self._targets, self._cumulative
        if cumulative is None:
            return targets[int(random() * len(targets))]
        return targets[bisect_right(cumulative, random() * cumulative[-1])]

    def two(self, random: Callable[[], float]) -> tuple[T, ...]:
        """Two targets: different ones when all weigh the same, else independent draws.

        Different ones are the better choice; but if one of weight 1 were drawn beside one of weight
        1000 each time there are only these two, it would be taken whenever it is idle. Drawn
        independently it gets at most twice its share.
        """
        if pairs := self._pairs:
            return pairs[int(random() * len(pairs))]
        targets, cumulative = self._targets, self._cumulative
        if cumulative is None:
            count = len(targets)
            i, j = int(random() * count), int(random() * (count - 1))
            return targets[i], targets[j + 1 if j >= i else j]
        total = cumulative[-1]
        return (
            targets[bisect_right(cumulative, random() * total)],
            targets[bisect_right(cumulative, random() * total)],
        )
