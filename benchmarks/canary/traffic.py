"""Simulated measurements of two variants, second by second. The same seed gives the same ones."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final

import numpy as np

from router.rollouts.measured import ERRORS, LATENCY, Block, Measured, Sketch, bucket_of
from router.rollouts.measured import SKETCH_GROWTH as GROWTH

OLD: Final = "old"
NEW: Final = "new"
MEDIAN_S: Final = 0.1
"""Of the old variant's latency, which is lognormal."""
BURST_ERRORS: Final = 10.0
_REACH: Final = 5.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens to 200 requests a second.

    `old_errors`, `new_errors` are rates, `slower` multiplies the new variant's latency, `sigma` is
    the standard deviation of the latency's logarithm. `is_bursty`: a failure strikes about ten
    requests of one variant in one second, which variant by its share of requests.
    """

    old_errors: float = 0.01
    new_errors: float = 0.01
    slower: float = 1.0
    sigma: float = 0.5
    is_bursty: bool = False
    rate: float = 200.0


class Traffic:
    """The measurements of one run; each call of `block` is a second."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._scenario = scenario
        self._random = np.random.default_rng(seed)
        self._sketches = {
            OLD: _Buckets(MEDIAN_S, scenario.sigma),
            NEW: _Buckets(MEDIAN_S * scenario.slower, scenario.sigma),
        }
        self._rates = {OLD: scenario.old_errors, NEW: scenario.new_errors}

    def block(self, weight: float) -> Block:
        """A second in which the new variant has this share of the requests."""
        n = int(self._random.poisson(self._scenario.rate))
        new = int(self._random.binomial(n, weight))
        return {OLD: self._measured(OLD, n - new), NEW: self._measured(NEW, new)}

    def _measured(self, variant: str, n: int) -> Measured:
        measured = Measured(requests=n)
        measured.count(ERRORS, n, self._errors(variant, n))
        measured.distributions[LATENCY] = self._sketches[variant].sample(n, self._random)
        return measured

    def _errors(self, variant: str, n: int) -> int:
        rate = self._rates[variant]
        if not self._scenario.is_bursty:
            return int(self._random.binomial(n, rate))
        bursts = self._random.poisson(n * rate / BURST_ERRORS)
        return min(n, int(self._random.poisson(BURST_ERRORS * bursts)))


class _Buckets:
    """A lognormal distribution in the buckets of a sketch."""

    def __init__(self, median: float, sigma: float) -> None:
        normal = NormalDist(math.log(median), sigma)
        self._first = bucket_of(median * math.exp(-_REACH * sigma))
        last = bucket_of(median * math.exp(_REACH * sigma))
        edges = [normal.cdf(bucket * GROWTH) for bucket in range(self._first + 1, last + 1)]
        self._bounds = np.array(edges)

    def sample(self, n: int, random: Any) -> Sketch:
        found = np.searchsorted(self._bounds, random.random(n)) + self._first
        buckets, counts = np.unique(found, return_counts=True)
        return dict(zip(buckets.tolist(), counts.tolist(), strict=True))


def blocks(traffic: Traffic, weight: float, count: int) -> Iterator[Block]:
    """So many seconds at one weight."""
    return (traffic.block(weight) for _ in range(count))
