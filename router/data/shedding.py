"""When to refuse at once because a backend's clients leave unanswered: on by default.

Pure: the clock is passed in. A backend that gets more than it can works on the oldest first; once
the wait is as long as the clients', nearly every answer comes too late, and most of the work is
done for nobody. Fewer requests at a time are answered in time, all of them ("Fail at Scale",
Maurer, ACM Queue 2015: requests that wait too long, not long requests, are the sign of overload).
The limits learnt by Netflix's concurrency-limits and Envoy's adaptive concurrency judge by latency
alone. That is too bold for a default: a model that batches, or long prompts after short ones, are
slower by as much and well. So this wants both signs, and looks only while some client leaves:

1. `base`, the time to the first byte without trouble, is the least median of a few answers that are
   timed each `SAMPLE_EVERY_S`; it rises by a sixtieth of the difference in 10 s. A request that
   is not timed costs nothing.
2. A client that leaves unanswered, while at least `min` requests are in flight, begins a window.
   When the share `left` of its requests was left, and their median took `slower` times `base`,
   the requests in flight are limited, to twice as many as were needed without a queue.
3. From then on, window by window: fewer while the signs last, more while they do not, up to where
   half of the clients' patience is spent waiting.
4. The limit ends when nothing was refused for some windows, when nothing happens any more, or when
   `min` requests at a time for `FRUITLESS_S` helped nobody: then it was no queue, but slower work.
"""

from collections.abc import Callable
from math import ceil, inf
from statistics import fmean
from typing import Final

from router.config.backends import Shed

WINDOW_S: Final = 0.5
ENDED_MIN: Final = 20
"""A share of fewer requests says little."""
SAMPLES_MAX: Final = 500
"""Times kept of a window; its median does not gain from more."""
SAMPLE_EVERY_S: Final = 1.0
SAMPLE_SIZE: Final = 10
BASE_RISE: Final = 1 / 600
"""Of the difference, each sample: a queue that grows over minutes must not pass for slower work."""
CUT_MIN: Final = 0.1
CUT_MAX: Final = 0.5
CUT_AGAIN: Final = 0.7
GROWTH: Final = 1.02
GROWTH_FREE: Final = 1.1
"""While there is no queue to speak of."""
CALM_WINDOWS: Final = 4
"""Without a refusal, until the limit ends."""
QUIET_S: Final = 5.0
FRUITLESS_S: Final = 30.0


class _Phase:
    """What a window is for; plain ints."""

    RESTING = 0
    SAMPLING = 1
    WATCHING = 2
    SETTLING = 3
    """The limit was lowered; what ends now began before."""
    LIMITING = 4


class Shedding:
    """Of one backend, in one worker."""

    def __init__(self, options: Shed, in_flight: Callable[[], int]) -> None:
        """`in_flight` counts requests that are worked on or wait. It is asked a few times a second,
        and for each request while there is a limit.
        """
        self.limit: float = inf
        """How many may be in flight."""
        self.base_s = inf
        self._options = options
        self._in_flight = in_flight
        self._phase = _Phase.SAMPLING
        self._samples: list[float] = []
        self._ended = self._refused = 0
        self._left: list[float] = []
        self._patience_s = 0.0
        self._window_end_s = 0.0
        self._last_s = 0.0
        self._calm = 0
        self._fewest_since_s = inf

    def __repr__(self) -> str:
        return f"<Shedding [{self.limit:g} | {self.base_s * 1000:.1f} ms without a queue]>"

    @property
    def is_timed(self) -> bool:
        """Whether answers are to be told to `observe`."""
        return self._phase != _Phase.RESTING

    @property
    def is_limiting(self) -> bool:
        return self.limit != inf

    def observe(self, elapsed_s: float, now_s: float) -> None:
        """The first byte of an answer took so long. Only while `is_timed`."""
        self._add(elapsed_s)
        if self._phase == _Phase.SAMPLING:
            if self._ended >= SAMPLE_SIZE:
                self._take_base()
        else:
            self._move_on(now_s)

    def on_left(self, after_s: float, now_s: float) -> None:
        """A request has ended unanswered after so long: nobody wants the answer any more."""
        if self._phase <= _Phase.SAMPLING:
            if self._in_flight() + 1 < self._options.min:
                return
            self._begin(_Phase.WATCHING, now_s, WINDOW_S)
        self._add(after_s)
        if len(self._left) < SAMPLES_MAX:
            self._left.append(after_s)
        else:
            self._left[self._ended % SAMPLES_MAX] = after_s
        self._move_on(now_s)

    def is_exceeded(self, now_s: float) -> bool:
        """Whether one more request would be too many; counts it if so. Only while `is_limiting`."""
        if now_s > self._last_s + max(QUIET_S, 2 * self._patience_s):
            self._lift()
            return False
        if self._in_flight() < self.limit:
            return False
        self._refused += 1
        return True

    def sample(self) -> None:
        """`SAMPLE_EVERY_S` has passed since it last rested: time some answers."""
        if self._phase == _Phase.RESTING:
            self._clear()
            self._phase = _Phase.SAMPLING

    def remember(self, earlier: "Shedding") -> None:
        """What `earlier` learned of the same endpoints holds here too."""
        self.base_s = earlier.base_s

    # windows

    def _add(self, elapsed_s: float) -> None:
        if len(self._samples) < SAMPLES_MAX:
            self._samples.append(elapsed_s)
        self._ended += 1

    def _take_base(self) -> None:
        median_s = self._median_s()
        if median_s < self.base_s:
            self.base_s = median_s
        else:
            self.base_s += BASE_RISE * (median_s - self.base_s)
        self._phase = _Phase.RESTING

    def _median_s(self) -> float:
        return sorted(self._samples)[len(self._samples) // 2]

    def _clear(self) -> None:
        self._samples.clear()
        self._left.clear()
        self._ended = self._left_count = self._refused = 0

    def _begin(self, phase: int, now_s: float, for_s: float) -> None:
        self._clear()
        self._phase = phase
        self._window_end_s = now_s + for_s

    def _move_on(self, now_s: float) -> None:
        self._last_s = now_s
        if now_s < self._window_end_s:
            return
        if self._phase == _Phase.SETTLING:
            self._begin(_Phase.LIMITING, now_s, WINDOW_S)
        elif self._ended >= ENDED_MIN:
            self._judge(now_s)
