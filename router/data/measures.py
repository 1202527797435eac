"""What a guard is to know of one variant, counted as requests end. Only for routes with a rollout.

What is counted, and against whom:

1. A request counts once, when it is over, for the variant that answered it last: what retries and
   hedges hide from the client counts nowhere.
2. An overflow is a failed request of the variant that could not answer; the fallback's answer is
   the fallback's.
3. Not counted is what no variant can help: requests that the router refuses for the client's fault
   (4xx of its own) or breaks off for it, and those cut because their endpoint was taken out and had
   its time. Requests refused before they have a variant (too many of them, a held route) are
   nobody's.
4. Time is measured of what was answered, and not by 5xx: who fails at once is not quick. Who left
   unanswered waited so long at least, and counts with that: else a version that hangs would have
   no slow requests. It is the client's time, without that spent held.
5. A stream counts when it ends, but its first byte at once.
"""

from collections import defaultdict
from enum import Enum, auto
from math import floor, log
from typing import Any, Final

from router.rollouts import measured
from router.rollouts.measured import SKETCH_GROWTH, Measured, bucket_of

_LEAST_S: Final = 1e-6
"""Less is measured as this: the sketch takes positive numbers."""


class End(Enum):
    """How a request was over."""

    WHOLE = auto()
    """With a whole answer, an endpoint's or the router's."""
    ABORTED = auto()
    """The client left."""
    CUT = auto()
    """After the head of its answer had gone to the client."""
    EXCUSED = auto()
    """In a way that says nothing of the variant."""


_WHOLE: Final = End.WHOLE
"""Looked up in the class it would be a tenth of the cost."""


class Measures:
    """One (route, variant) in one worker. Cost: 0.5 us a request, the clock included."""

    __slots__ = (
        "_aborts", "_errors", "_first_bytes", "_latencies", "_requests", "_truncated", "route",
        "variant",
    )  # fmt: skip

    def __init__(self, route: str, variant: str) -> None:
        self.route = route
        self.variant = variant
        self._clear()

    def _clear(self) -> None:
        self._requests = self._errors = self._aborts = self._truncated = 0
        self._first_bytes: defaultdict[int, int] = defaultdict(int)
        self._latencies: defaultdict[int, int] = defaultdict(int)

    def observe_head(self, status: int, elapsed_s: float) -> None:
        """The head of an answer goes to the client, so long after the request came."""
        if status < 500:
            time_s = elapsed_s if elapsed_s > _LEAST_S else _LEAST_S
            self._first_bytes[floor(log(time_s) / SKETCH_GROWTH)] += 1  # `bucket_of`, quicker

    def observe(self, status: int, elapsed_s: float, end: End) -> None:
        """A request is over, so long after it came."""
        if end is not _WHOLE:
            self._observe_broken(status, elapsed_s, end)
            return
        self._requests += 1
        if status >= 500:
            self._errors += 1
        elif status != 101:  # how long a tunnel lasts is not up to the model
            time_s = elapsed_s if elapsed_s > _LEAST_S else _LEAST_S
            self._latencies[floor(log(time_s) / SKETCH_GROWTH)] += 1

    def _observe_broken(self, status: int, elapsed_s: float, end: End) -> None:
        if end is End.EXCUSED:
            return
        if end is End.ABORTED and status == 0:  # unanswered
            bucket = bucket_of(max(elapsed_s, _LEAST_S))
            self._first_bytes[bucket] += 1
            self._latencies[bucket] += 1
        self._requests += 1
        self._errors += status >= 500
        self._aborts += end is End.ABORTED
        self._truncated += end is End.CUT

    def count_overflow(self) -> None:
        """The variant could not answer a request; its fallback is asked."""
        self._requests += 1
        self._errors += 1

    def take(self) -> list[list[Any]]:
        """The row of `messages.Stats.measured` since the last `take`, if there is anything."""
        of = self._requests
        if not (of or self._first_bytes):
            return []
        whole = Measured(
            of,
            {
                measured.ERRORS: [of, self._errors],
                measured.ABORTS: [of, self._aborts],
                measured.TRUNCATED: [of, self._truncated],
            },
            {measured.LATENCY: self._latencies, measured.FIRST_BYTE: self._first_bytes},
        )
        self._clear()
        return [[self.route, self.variant, whole.dump()]]
