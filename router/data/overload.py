"""What `shedding` decides, carried out: which answers of a backend are timed, when a request is
refused.

Knows the endpoints and what waits, not their pool: a cycle would outlive a reload.
"""

from collections.abc import Sequence, Sized
from functools import partial
from math import inf

from router.config.backends import Limits, Shed
from router.data.endpoint import EndpointPool
from router.data.shedding import SAMPLE_EVERY_S, Shedding
from router.data.wheel import Wheel


class Overload:
    """Of one backend, in one worker. In the wheel while no answer is timed."""

    def __init__(
        self,
        options: Shed,
        wheel: Wheel,
        endpoints: Sequence[EndpointPool],
        pending: Sized,
        *,
        is_learning: bool,
    ) -> None:
        """`is_learning`: every answer is timed anyway, for others."""
        self.shedding = Shedding(options, partial(_in_flight, endpoints, pending))
        self.deadline = inf
        self.slot_s = inf
        self._wheel = wheel
        self._endpoints = endpoints
        self._is_learning = is_learning
        self._is_timed = False
        self._follow(0.0)

    def __repr__(self) -> str:
        return f"<Overload {self.shedding!r}>"

    @property
    def is_limiting(self) -> bool:
        """Whether `is_exceeded` is to be asked."""
        return self.shedding.is_limiting

    def observe(self, elapsed_s: float, now_s: float) -> None:
        """The first byte of an answer took so long."""
        if self._is_timed:
            self.shedding.observe(elapsed_s, now_s)
            self._follow(now_s)

    def on_left(self, after_s: float, now_s: float) -> None:
        """A request ended unanswered after so long."""
        self.shedding.on_left(after_s, now_s)
        self._follow(now_s)

    def is_exceeded(self, now_s: float) -> bool:
        """Whether one more request would be too many. Cost: linear in the endpoints."""
        is_exceeded = self.shedding.is_exceeded(now_s)
        self._follow(now_s)
        return is_exceeded

    def on_deadline(self) -> None:
        """It is time to time some answers; see `wheel.Timed`."""
        self.shedding.sample()
        self._follow(0.0)

    def remember(self, earlier: "Overload") -> None:
        """What was learned in `earlier`, whose pool this one's replaces, holds here too."""
        self.shedding.remember(earlier.shedding)

    def retire(self) -> None:
        """Nobody asks any more."""
        self._wheel.drop(self)

    def _follow(self, now_s: float) -> None:
        is_timed = self.shedding.is_timed
        if is_timed == self._is_timed:
            return
        self._is_timed = is_timed
        for endpoint in self._endpoints:
            endpoint.is_timed = is_timed or self._is_learning
        if not is_timed:
            self._wheel.arm(self, now_s + SAMPLE_EVERY_S)


def _in_flight(endpoints: Sequence[EndpointPool], pending: Sized) -> int:
    return len(pending) + sum(item.open - len(item.idle) for item in endpoints)


def build(
    limits: Limits,
    wheel: Wheel,
    endpoints: Sequence[EndpointPool],
    pending: Sized,
    *,
    is_learning: bool,
) -> Overload | None:
    """What `limits` ask for; with a limit learnt from latency alone, nothing."""
    if limits.shed is None or limits.adaptive is not None:
        return None
    return Overload(limits.shed, wheel, endpoints, pending, is_learning=is_learning)
