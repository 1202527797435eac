"""How an index policy, which would send each request to one arm, becomes shares.

The requests until the next weights are dealt out one by one to the arm with the largest index;
each raises the arm's count, which lowers its index, while what is known of its mean stays. The
share is the part of the deals. Batches of a size that grows with what is known lose no more than a
constant factor (as in Perchet, Rigollet, Chassang & Snowberg, "Batched bandit problems", Annals of
Statistics 44, 2016).
"""

from collections.abc import Callable, Sequence
from typing import Final

from router.bandits.arms import Pulls

DEALS: Final = 50
"""Shares are multiples of about 2 %."""
_ROUND: Final = 0.1
"""The requests dealt out, of those known."""

Index = Callable[[float, float, float], float]
"""`(mean, n > 0, ln of all rewards >= 0)` -> index."""


def deal(arms: Sequence[Pulls], index: Index, log_all: float) -> list[float]:
    """Shares of the arms. Arms whose indexes tie get equal parts of a deal; an arm without
    rewards comes first. Cost: `DEALS` indexes and one more for each arm."""
    size = max(1.0, _ROUND * sum(arm.n for arm in arms) / DEALS)
    counts = [arm.n for arm in arms]
    means = [min(max(arm.mean, 0.0), 1.0) for arm in arms]
    tops = [_top(index, m, n, log_all) for m, n in zip(means, counts, strict=True)]
    dealt = [0.0] * len(arms)
    for _ in range(DEALS):
        largest = max(tops)
        first = [k for k, top in enumerate(tops) if top == largest]
        for k in first:
            dealt[k] += 1.0 / len(first)
            counts[k] += size / len(first)
            tops[k] = _top(index, means[k], counts[k], log_all)
    return [part / DEALS for part in dealt]


def _top(index: Index, mean: float, n: float, log_all: float) -> float:
    return index(mean, n, log_all) if n > 0.0 else 1e300
