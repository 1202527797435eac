"""`slow_start`: an endpoint that has come up gets its share little by little.

A cold model server is slow: caches are empty, code is not compiled, memory is not mapped. Its
weight rises in a straight line from a tenth to the whole, in steps of a tenth of the time.
"""

from typing import Final

FIRST: Final = 0.1
"""The part of its weight that an endpoint begins with. With less the first requests, which warm it
up, would not come; the default of Envoy's `min_weight_percent` is 10 %, too."""
STEPS: Final = 10


class SlowStart:
    """Which endpoints of a backend have just come up, by URL. Clock passed in."""

    def __init__(self, duration_s: float) -> None:
        """0: endpoints get their whole weight at once."""
        self.step_s = duration_s / STEPS
        """How often weights are to be looked at, while `is_under_way`."""
        self._duration_s = duration_s
        self._came_s: dict[str, float] = {}

    @property
    def is_under_way(self) -> bool:
        """Whether some endpoint had not its whole weight when it was last asked for."""
        return bool(self._came_s)

    def begin(self, url: str, now_s: float) -> None:
        """The endpoint came up, perhaps again."""
        if self._duration_s > 0:
            self._came_s[url] = now_s

    def factor(self, url: str, now_s: float) -> float:
        """What to multiply the endpoint's weight by, now."""
        came_s = self._came_s.get(url)
        if came_s is None:
            return 1.0
        factor = FIRST + (1.0 - FIRST) * (now_s - came_s) / self._duration_s
        if factor >= 1.0:
            del self._came_s[url]
        return min(factor, 1.0)
