"""`peak_ewma`: of two endpoints drawn at random that where an answer is to be expected sooner.

What is compared is latency x (requests in flight + 1) / weight. Latency, from the request's last
byte to the response's head, is an average over time that follows a rise at once and a fall slowly:

    latency' = max(elapsed, latency * w + elapsed * (1 - w)),  w = exp(-seconds since the last / 10)

1. A latency fades as time goes by without answers, so that one that was slow is tried again.
2. Latencies are kept as they would be at one instant, the same for all: what they fade by since is
   the same factor on both sides of a comparison. So a pick needs no clock and no exponential.
3. An endpoint whose latency is not known gets one request at a time until it is.

Source: Finagle's `PeakEwma` load metric (twitter.github.io/finagle/guide/Clients.html), which
linkerd took over, with 10 s as its time constant.
"""

from collections.abc import Callable
from math import exp
from typing import Final, Generic

from router.data.balance.base import T
from router.data.balance.draw import Draw

DECAY_S: Final = 10.0
"""The time in which a latency fades to 37 %. Finagle's and linkerd's default."""
_UNKNOWN: Final = 1e200
"""Stands for the latency of an endpoint that works on its first request: above any other."""
_REBASE_AFTER: Final = 100.0
"""In units of `DECAY_S`: the factors stay below exp(100), far from what a float can hold."""


class PeakEwma(Generic[T]):
    """Power of two choices on peak-EWMA latency.

    `Target.latency_s` is kept as it would be at `_base_s`, had it not faded since.
    """

    needs_latency = True

    def __init__(self) -> None:
        self._targets: tuple[T, ...] = ()
        self._two = Draw[T](()).two
        self._base_s = 0.0
        self._observed_s: dict[str, float] = {}

    def adopt(self, targets: tuple[T, ...]) -> None:
        known = {target.url for target in self._targets}
        for target in targets:
            if target.url not in known:
                target.latency_s = 0.0
                self._observed_s.pop(target.url, None)
        self._targets = targets
        self._two = Draw(targets).two

    def pick(self, random: Callable[[], float], key: bytes) -> T:
        a, b = self._two(random)
        latency_a, latency_b = a.latency_s, b.latency_s
        if not latency_a and a.in_flight:
            latency_a = _UNKNOWN
        if not latency_b and b.in_flight:
            latency_b = _UNKNOWN
        load_a = latency_a * (a.in_flight + 1) * b.weight
        load_b = latency_b * (b.in_flight + 1) * a.weight
        return a if load_a <= load_b else b

    def observe(self, target: T, elapsed_s: float, now_s: float) -> None:
        age = (now_s - self._base_s) / DECAY_S
        if age > _REBASE_AFTER:
            self._rebase(now_s, exp(-age))
            age = 0.0
        rise = exp(age)
        kept = exp((self._observed_s.get(target.url, now_s) - now_s) / DECAY_S)
        average_s = target.latency_s / rise + elapsed_s * (1.0 - kept)
        target.latency_s = max(elapsed_s, average_s) * rise
        self._observed_s[target.url] = now_s

    def _rebase(self, now_s: float, factor: float) -> None:
        self._base_s = now_s
        for target in self._targets:
            target.latency_s *= factor
