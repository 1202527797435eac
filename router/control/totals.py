"""Totals: what workers counted, merged. Plain numbers; `metrics.py` and `status.py` read them.

Counters add up for the life of the program: a worker's death or a reload takes nothing away.
Gauges are those of the workers alive, summed.
"""

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import accumulate

from router.messages import LATENCY_BOUNDS_S, RequestCounts, Stats

RequestKey = tuple[str, str, str]
"""(route, variant, code class)."""


def _empty_buckets() -> list[int]:
    return [0] * (len(LATENCY_BOUNDS_S) + 1)


@dataclass(slots=True)
class Latencies:
    """How many requests, how long in sum, and how many per bucket of `LATENCY_BOUNDS_S`."""

    count: int = 0
    sum_s: float = 0.0
    buckets: list[int] = field(default_factory=_empty_buckets)

    def add(self, count: int, sum_s: float, buckets: list[int]) -> None:
        """Count more.

        Raises:
            ValueError: `buckets` has another length.
        """
        self.count += count
        self.sum_s += sum_s
        self.buckets = [a + b for a, b in zip(self.buckets, buckets, strict=True)]

    def quantile(self, q: float) -> float | None:
        """Seconds below which a share `q` of requests took, linear within a bucket.

        None without requests. Past the last bound that bound is the answer: a lower limit.
        """
        running = list(accumulate(self.buckets))
        rank = q * running[-1]
        if rank <= 0:
            return None
        index = bisect_left(running, rank)
        if index >= len(LATENCY_BOUNDS_S):
            return LATENCY_BOUNDS_S[-1]
        lower = LATENCY_BOUNDS_S[index - 1] if index else 0.0
        below = running[index - 1] if index else 0
        within = (rank - below) / self.buckets[index]
        return lower + (LATENCY_BOUNDS_S[index] - lower) * within


@dataclass(slots=True)
class VariantTotals:
    """The answers of one variant on one route: how long they took, how many per code class."""

    latencies: Latencies = field(default_factory=Latencies)
    codes: dict[str, int] = field(default_factory=dict)


class Totals:
    """The merged figures of every worker that ever ran."""

    def __init__(self) -> None:
        self.requests: dict[RequestKey, Latencies] = {}
        self.counters: defaultdict[str, defaultdict[tuple[str, ...], float]] = defaultdict(
            lambda: defaultdict(float)
        )
        self._gauges: dict[int, dict[str, float]] = {}

    def add(self, stats: Stats) -> None:
        """Take in a worker's increments and gauges."""
        for row in stats.requests:
            counts = RequestCounts(*row)
            key = (counts.route, counts.variant, counts.code)
            series = self.requests.setdefault(key, Latencies())
            series.add(counts.count, counts.sum_s, counts.buckets)
        for metric, labels, n in stats.counters:
            self.counters[metric][tuple(labels)] += n
        self._gauges[stats.worker] = stats.gauges

    def forget_gauges(self, worker: int) -> None:
        """The worker in this slot died: what it held open is gone with it."""
        self._gauges.pop(worker, None)

    def gauge(self, metric: str) -> float:
        """The sum over workers alive."""
        return sum(gauges.get(metric, 0.0) for gauges in self._gauges.values())

    def by_variant(self) -> dict[tuple[str, str], "VariantTotals"]:
        """(route, variant) -> all its answers together. Cost: O(n) in the series."""
        merged: dict[tuple[str, str], VariantTotals] = {}
        for (route, variant, code), series in self.requests.items():
            totals = merged.setdefault((route, variant), VariantTotals())
            totals.latencies.add(series.count, series.sum_s, series.buckets)
            totals.codes[code] = series.count
        return merged
