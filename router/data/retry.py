"""When a request may be sent again, and how long to wait before: the rules of one backend.

Pure: knows no connection, no clock, no loop. Owns one number, the retries in progress.

1. What was not sent, or can not have been acted on, may go again whatever the method is. The rest
   only when the request may be acted on twice (RFC 9110 section 9.2.2).
2. The budget bounds what retries add to the load of a backend in trouble. Some cost it no work that
   an answer would not have cost: nothing was sent (`connect`, `unsent`); a kept-alive connection
   was closed, which an earlier answer paid for (`stale`); the endpoint was taken out
   (`endpoint-down`). These the number of attempts alone bounds.
3. Waits are drawn from 0 to a bound that doubles, so that requests that failed together do not come
   back together ("full jitter", Brooker, AWS Architecture Blog, 2015).
"""

from typing import Final

from router.config.retry import Retry

UNBUDGETED: Final = frozenset(("connect", "unsent", "stale", "endpoint-down"))
"""Reasons that the budget does not bound."""
_ALWAYS: Final = frozenset(("unsent", "stale", "endpoint-down"))
"""Reasons that need not be listed in `on`."""
_UNSENT: Final = frozenset(("connect", "unsent"))


class Retries:
    """The rules of one backend's `retry:`, and its retries in progress in one worker."""

    def __init__(self, config: Retry) -> None:
        self.attempts_max = config.attempts
        self.buffer_bytes = config.buffer
        self.per_try_s = config.per_try
        self.in_progress = 0
        """Places taken in the budget: waits, and attempts without an answer so far."""
        self._reasons = _ALWAYS | {str(reason) for reason in config.on}
        self._share = config.budget
        self._least = config.budget_min
        self._wait_s = config.backoff
        self._wait_max_s = config.backoff_max

    def __repr__(self) -> str:
        return f"<Retries [{self.in_progress} in progress]>"

    def covers(self, reason: str) -> bool:
        """Whether an attempt that ended so is worth another: a word, or a status in digits."""
        return reason in self._reasons

    def denial(
        self, reason: str, attempts: int, *, may_repeat: bool, held_bytes: int | None
    ) -> str | None:
        """Why there is no further attempt, the budget aside: `method`, `attempts` or `buffer`.

        `attempts` were made, the last of which ended with `reason`. `may_repeat`: an endpoint may
        act on the request twice. `held_bytes`: what is held of it; None: it was let go.
        """
        was_sent = reason not in _UNSENT
        if was_sent and not may_repeat:
            return "method"
        if attempts >= self.attempts_max:
            return "attempts"
        if held_bytes is None or (was_sent and held_bytes > self.buffer_bytes):
            return "buffer"
        return None

    def take(self, in_flight: int) -> bool:
        """Take a place in the budget. False: none is left with so many requests `in_flight`."""
        if self.in_progress >= max(self._least, int(self._share * in_flight)):
            return False
        self.in_progress += 1
        return True

    def give_back(self) -> None:
        """Leave a place that `take` gave."""
        self.in_progress -= 1

    def wait_s(self, number: int, u: float) -> float:
        """The wait of that number, from 1, of one request; `u` is uniform in [0, 1)."""
        return u * min(self._wait_max_s, self._wait_s * 2.0 ** (number - 1))
