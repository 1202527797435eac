"""How many requests of one worker may be in flight to one backend: a fixed limit, a learnt one.

Pure: the clock is passed in. The learnt limit follows the idea of Netflix's Gradient2 and Envoy's
adaptive concurrency: while requests queue in the backend, the time to the first byte grows with
their number. Where theirs drift or stall, this differs:

1. Windows. The median of a window's times is `short`; a window takes at least `WINDOW_S`, one round
   trip and `SAMPLES_MIN` answers, so that it shows the limit it was taken under.
2. `base`, the time without a queue, is the least `short`. It rises only when the limit did not
   bind, or by a probe: every `PROBE_S` the limit is a quarter for some round trips, and the time
   found then is the new `base`. A long average instead, as in Gradient2, grows with the queue under
   lasting overload; Envoy's probes with three requests cost slow models seconds of their work.
3. Probes begin at multiples of `PROBE_S` of the clock, which the workers of a machine share: one
   that probed while the others kept the queue full would take the queue for the backend's own time.
4. The new limit is `limit * gradient + sqrt(limit)`, smoothed, with
   `gradient = tolerance * base / short` between 0.5 and 1. It moves only while it binds.
"""

from math import ceil, log2, sqrt
from typing import Final

from router.config.backends import Adaptive, Limits

WINDOW_S: Final = 0.1
SAMPLES_MIN: Final = 10
SAMPLES_MAX: Final = 500
"""Times kept of a window; its median does not gain from more."""
PROBE_S: Final = 30.0
"""Long against a probe, of about three round trips; above 0.125 s each it is doubled, and so on."""
PROBE_SHARE: Final = 0.25
START: Final = 20
"""The limit after the first window, as in Netflix's: few models take fewer, growth is quick."""
SMOOTHING: Final = 0.2


class _Phase:
    """What a window is for; plain ints."""

    NORMAL = 0
    DRAINING = 1
    """A probe has begun; what is measured now was sent before."""
    PROBING = 2


class Gradient:
    """The learnt limit."""

    def __init__(self, options: Adaptive, now_s: float) -> None:
        self._options = options
        self._limit = float(min(max(START, options.min), options.max))
        self.limit = options.min
        """How many may be in flight; at first few, to see the time without a queue."""
        self._base_s = 0.0
        self._short_s = 0.0
        self._samples: list[float] = []
        self._most_in_flight = 0
        self._is_binding = False
        self._window_end_s = now_s + WINDOW_S
        self._phase = _Phase.PROBING
        self._next_probe_s = now_s + PROBE_S

    def __repr__(self) -> str:
        return f"<Gradient [{self.limit} | {self._base_s * 1000:.1f} ms without a queue]>"

    def observe(self, elapsed_s: float, in_flight: int, now_s: float) -> None:
        """The first byte took `elapsed_s`, with `in_flight` requests, this one included."""
        samples = self._samples
        if len(samples) < SAMPLES_MAX:
            samples.append(elapsed_s)
        if in_flight > self._most_in_flight:
            self._most_in_flight = in_flight
        if self._phase == _Phase.NORMAL and now_s >= self._next_probe_s:
            self._begin_probe(now_s)
        elif now_s >= self._window_end_s:
            self._end_window(now_s)

    def _end_window(self, now_s: float) -> None:
        samples = self._samples
        if self._phase == _Phase.DRAINING:
            self._begin_window(_Phase.PROBING, now_s, self._base_s)
            return
        if len(samples) < SAMPLES_MIN:
            return
        samples.sort()
        self._short_s = samples[len(samples) // 2]
        if self._phase == _Phase.PROBING:
            self._base_s = self._short_s
        else:
            self._is_binding = self._most_in_flight * 2 >= self.limit
            self._adapt()
        self.limit = int(self._limit)
        self._begin_window(_Phase.NORMAL, now_s, self._short_s)

    def _begin_window(self, phase: int, now_s: float, at_least_s: float) -> None:
        self._phase = phase
        self._samples.clear()
        self._most_in_flight = 0
        self._window_end_s = now_s + max(WINDOW_S, at_least_s)

    def _adapt(self) -> None:
        """Move the limit, or while it does not bind the base."""
        options, limit, short_s = self._options, self._limit, max(self._short_s, 1e-6)
        if not self._is_binding:
            self._base_s += 0.1 * (short_s - self._base_s)
            return
        self._base_s = min(self._base_s, short_s)
        gradient = min(1.0, max(0.5, options.tolerance * self._base_s / short_s))
        limit += SMOOTHING * (limit * gradient + sqrt(limit) - limit)
        self._limit = min(max(limit, float(options.min)), float(options.max))

    def _begin_probe(self, now_s: float) -> None:
        period_s = PROBE_S * 2 ** max(0, ceil(log2(8 * max(self._base_s, 1e-6))))
        self._next_probe_s = (now_s // period_s + 1) * period_s
        if self._is_binding:
            self.limit = max(self._options.min, int(self._limit * PROBE_SHARE))
            self._begin_window(_Phase.DRAINING, now_s, 1.5 * self._short_s)


class Limiter:
    """One backend's requests in flight, and what bounds them."""

    def __init__(self, limits: Limits, now_s: float) -> None:
        self._fixed = limits.in_flight or None
        self.gradient = None if limits.adaptive is None else Gradient(limits.adaptive, now_s)
        self.in_flight = 0

    def exceeded(self) -> str | None:
        """The limit that one more request would exceed: `adaptive`, `in_flight` or None."""
        in_flight = self.in_flight
        if self.gradient is not None and in_flight >= self.gradient.limit:
            return "adaptive"
        return "in_flight" if self._fixed is not None and in_flight >= self._fixed else None


def build(limits: Limits, now_s: float, *, is_counted: bool = False) -> Limiter | None:
    """The limiter that `limits` ask for, if any; one without a limit when only its count is."""
    is_wanted = is_counted or limits.in_flight or limits.adaptive is not None
    return Limiter(limits, now_s) if is_wanted else None
