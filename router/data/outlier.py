"""What is held against an endpoint because of what its requests met.

Pure: the clock is passed in. Two rules, both looked at only when a request failed, so that one that
went well costs a single count (`EndpointPool.answers`):

1. So many failures in a row.
2. Too large a share of failures, by a cumulative sum (Page 1954): a failure adds `1 - share`, an
   answer takes `share` away, never below 0; at `share * min_requests` it is too much. A share over
   a window of time would be diluted by what went well before: an endpoint that begins to fail half
   of 300 requests a second would be noticed after 900 failures, here after about 15.

The first ejection takes `eject_for`, each further one twice the last, up to `max_eject_for`; each
`eject_for` that the endpoint is in use takes one doubling back.
"""

from math import inf
from typing import Final

from router.config.health import Outlier

CONSECUTIVE: Final = "consecutive-failures"
SHARE: Final = "failure-share"
_DOUBLINGS_MAX: Final = 32
"""Past any pair of durations; keeps the power in bounds."""


class Suspicion:
    """One endpoint's record in one worker."""

    __slots__ = ("_answers", "_doublings", "_excess", "_failed_s", "_options", "_streak", "_used_s")

    def __init__(self, options: Outlier) -> None:
        self._options = options
        self._answers = 0
        """The endpoint's answers at its last failure."""
        self._streak = 0
        self._excess = 0.0
        self._failed_s = -inf
        self._doublings = 0
        self._used_s = -inf
        """When the last ejection ended."""

    def observe_failure(self, answers: int, now_s: float) -> str | None:
        """A request failed, after `answers` that went well in all. Returns why to eject, or None.

        `now_s`: seconds of a clock that never goes back.
        """
        options = self._options
        since = answers - self._answers
        self._answers = answers
        self._streak = self._streak + 1 if since == 0 else 1
        excess = self._excess if now_s - self._failed_s <= options.window else 0.0
        share = options.failure_share
        self._excess = max(0.0, excess - since * share) + 1.0 - share
        self._failed_s = now_s
        if self._streak >= options.consecutive_failures:
            return CONSECUTIVE
        if share < 1.0 and self._excess >= share * options.min_requests:
            return SHARE
        return None

    def forget(self) -> None:
        """Begin anew: the endpoint is ejected, or cannot be spared."""
        self._streak = 0
        self._excess = 0.0

    def eject(self, now_s: float) -> float:
        """The endpoint is ejected now: for so many seconds."""
        options = self._options
        behaved = min((now_s - self._used_s) / options.eject_for, _DOUBLINGS_MAX)
        doublings = max(0, self._doublings - int(behaved))
        self._doublings = min(doublings + 1, _DOUBLINGS_MAX)
        self.forget()
        return float(min(options.eject_for * 2**doublings, options.max_eject_for))

    def on_return(self, now_s: float) -> None:
        """The endpoint is in use again."""
        self._used_s = now_s


def ejectable(options: Outlier, endpoints: int) -> int:
    """How many of so many endpoints may be ejected at a time: never all, and one of any two."""
    if options.max_ejected == 0.0:
        return 0
    return min(max(1, int(options.max_ejected * endpoints)), endpoints - 1)
