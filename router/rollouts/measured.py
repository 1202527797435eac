"""What happened to a variant's requests: counts and sketches that add up.

Whatever may become a guard is one of two forms, so that later measurements (a KPI, the disagreement
of a shadow) become guards by being counted here under a new name, and nothing else changes:
a rate (of so many, so often), or a distribution of positive numbers.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

ERRORS: Final = "errors"
"""Rate: answered 5xx (by the endpoint or in the router's name), overflowed to the fallback, cut
midway, or an ejection of an endpoint."""
ABORTS: Final = "aborts"
"""Rate: the client left before the end."""
TRUNCATED: Final = "truncated"
"""Rate: cut after the head of the response had gone to the client."""
LATENCY: Final = "latency"
"""Distribution: seconds from the first byte of a request to the last byte of its response, or until
its client left unanswered."""
FIRST_BYTE: Final = "first_byte"
"""Distribution: seconds from the first byte of a request to the head of its response, or until its
client left unanswered."""

RATES: Final = (ERRORS, ABORTS, TRUNCATED)
DISTRIBUTIONS: Final = (LATENCY, FIRST_BYTE)
"""Every measurement there is. A guard on another is refused."""

SKETCH_ACCURACY: Final = 0.01
"""A quantile of a sketch is off by no more than this share of itself."""
SKETCH_GROWTH: Final = math.log((1 + SKETCH_ACCURACY) / (1 - SKETCH_ACCURACY))


def bucket_of(value: float) -> int:
    """The logarithmic bucket of a positive number (DDSketch: Masson, Rim & Lee, VLDB 2019)."""
    return math.floor(math.log(value) / SKETCH_GROWTH)


def value_of(bucket: int) -> float:
    """What stands for a bucket: no number in it is further away than `SKETCH_ACCURACY`."""
    low = math.exp(bucket * SKETCH_GROWTH)
    return low * (1 + SKETCH_ACCURACY)


Sketch = dict[int, int]
"""Bucket -> how many. Merging is adding."""


@dataclass(slots=True)
class Measured:
    """What one variant did in some time. All counts add up; see `merge`.

    `requests`: requests that ended, however they did. `rates`: name -> [of how many, how often].
    `distributions`: name -> sketch.
    """

    requests: int = 0
    rates: dict[str, list[int]] = field(default_factory=dict)
    distributions: dict[str, Sketch] = field(default_factory=dict)

    def count(self, name: str, of: int, happened: int) -> None:
        """Count `happened` events among `of` under a rate."""
        rate = self.rates.setdefault(name, [0, 0])
        rate[0] += of
        rate[1] += happened

    def merge(self, other: "Measured") -> None:
        """Add what `other` counted."""
        self.requests += other.requests
        for name, (of, happened) in other.rates.items():
            self.count(name, of, happened)
        for name, sketch in other.distributions.items():
            mine = self.distributions.setdefault(name, {})
            for bucket, n in sketch.items():
                mine[bucket] = mine.get(bucket, 0) + n

    def dump(self) -> list[Any]:
        """As JSON-able data: `[requests, rates, distributions]`, bucket numbers as text."""
        sketches = {
            name: {str(bucket): n for bucket, n in sketch.items()}
            for name, sketch in self.distributions.items()
        }
        return [self.requests, self.rates, sketches]

    @classmethod
    def restore(cls, dumped: list[Any]) -> "Measured":
        """The inverse of `dump`.

        Raises:
            ValueError: it is not a dump.
        """
        try:
            requests, rates, sketches = dumped
            return cls(
                int(requests),
                {str(name): [int(of), int(happened)] for name, (of, happened) in rates.items()},
                {
                    str(name): {int(bucket): int(n) for bucket, n in sketch.items()}
                    for name, sketch in sketches.items()
                },
            )
        except (TypeError, AttributeError) as error:
            raise ValueError(f"not a dump of measurements: {error}") from error


Block = Mapping[str, Measured]
"""Variant -> what it did in the same stretch of time, about a second."""


def above(sketch: Sketch, threshold: float) -> int:
    """How many numbers of a sketch are above `threshold`, which must be positive."""
    return beyond(sketch, bucket_of(threshold))


def beyond(sketch: Sketch, limit: int) -> int:
    """How many numbers of a sketch are in buckets after `limit`."""
    return sum(n for bucket, n in sketch.items() if bucket > limit)


def quantile(sketch: Sketch, q: float) -> float | None:
    """The number below which a share `q` lies; None of an empty sketch. Cost: O(n log n)."""
    rank = q * (sum(sketch.values()) - 1)
    if rank < 0:
        return None
    running = 0
    bucket = 0
    for bucket in sorted(sketch):
        running += sketch[bucket]
        if running > rank:
            break
    return value_of(bucket)


def merged(blocks: Iterable[Block]) -> dict[str, Measured]:
    """Several blocks as one."""
    whole: dict[str, Measured] = {}
    for block in blocks:
        for variant, measured in block.items():
            whole.setdefault(variant, Measured()).merge(measured)
    return whole
