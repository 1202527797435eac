"""Notifications: who wants to know is told of each event of a rollout, and nobody waits for that.

Owns one queue and one task per target of `notify:`. Strategy:

1. `send` only appends. A queue holds `QUEUE_MAX` events; when it is full the oldest is dropped
   and counted. So a target that is slow or gone costs nothing but its own news.
2. A target is told one event after the other, in their order. One that cannot be reached, or
   answers 429 or 5xx, is tried again after an exponential back-off with full jitter (Brooker,
   "Exponential Backoff And Jitter", 2015), no sooner than its `Retry-After`. Any other answer
   would be the same again: it is final.
3. A reload keeps the queue of a target that keeps its name; the next attempt goes by the new
   options. What waits for a target that is removed is dropped.
4. `close` gives what waits `CLOSE_S`, then drops it.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Final

from router import logs
from router.config.notify import Target
from router.control.payloads import request, wants
from router.control.post import Answer, Unanswered
from router.rollouts.state import Event

QUEUE_MAX: Final = 256
"""Events that wait for one target: hours of a rollout, at about 2 KiB each."""
BACK_OFF_S: Final = 1.0
"""Longest pause before the first retry; it doubles with each."""
BACK_OFF_MAX_S: Final = 60.0
"""Longest pause, whatever the number of the retry or `Retry-After`."""
CLOSE_S: Final = 3.0
"""How long the end of the program waits for news to leave."""
_TOO_MANY: Final = 429

Post = Callable[[str, bytes, Mapping[str, str], float], Awaitable[Answer]]
"""POST a body with headers to a URL within some seconds. Raises `Unanswered`."""

log = logging.getLogger(__name__)


class Webhooks:
    """All targets in force."""

    def __init__(self, post: Post, now: Callable[[], float], random: Random) -> None:
        """`now` is seconds since 1970; `random` spreads retries."""
        self.counts: Counter[tuple[str, ...]] = Counter()
        """(target, `sent` | `failed` | `dropped`) -> events."""
        self._post = post
        self._now = now
        self._random = random
        self._senders: dict[str, _Sender] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def adopt(self, targets: Sequence[Target]) -> None:
        """Put the targets of a config in force. Needs a running loop."""
        before, self._senders = self._senders, {}
        for target in targets:
            sender = before.pop(target.label, None)
            if sender is None:
                sender = _Sender(target, self._post, self._now, self._random, self._count)
            sender.target = target
            self._senders[target.label] = sender
        for sender in before.values():
            self._end(sender)

    def send(self, event: Event) -> None:
        """Tell everybody who wants to know. Never waits, never fails."""
        for sender in self._senders.values():
            if wants(sender.target, event):
                sender.add(event)

    async def close(self) -> None:
        """Let what waits leave, for a bounded time."""
        waiting = [asyncio.create_task(one.idle.wait()) for one in self._senders.values()]
        if waiting:
            await asyncio.wait(waiting, timeout=CLOSE_S)
        for task in waiting:
            task.cancel()
        for sender in self._senders.values():
            self._end(sender)
        self._senders = {}
        await asyncio.gather(*waiting, *self._ending, return_exceptions=True)

    def _end(self, sender: "_Sender") -> None:
        sender.end()
        self._ending.add(sender.task)
        sender.task.add_done_callback(self._ending.discard)

    def _count(self, target: str, outcome: str) -> None:
        self.counts[target, outcome] += 1


class _Sender:
    """One target, what waits for it, and the task that sends."""

    def __init__(
        self,
        target: Target,
        post: Post,
        now: Callable[[], float],
        random: Random,
        count: Callable[[str, str], None],
    ) -> None:
        self.target = target
        self.idle = asyncio.Event()
        """Set while nothing waits and nothing is under way."""
        self.idle.set()
        self._post = post
        self._now = now
        self._random = random
        self._count = count
        self._queue: deque[Event] = deque()
        self._has_more = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name=f"notify-{target.label}")

    def add(self, event: Event) -> None:
        """Let `event` wait its turn."""
        if len(self._queue) >= QUEUE_MAX:
            self._drop(self._queue.popleft(), "too many wait")
        self._queue.append(event)
        self.idle.clear()
        self._has_more.set()

    def end(self) -> None:
        """Send nothing any more."""
        self.task.cancel()
        while self._queue:
            self._drop(self._queue.popleft(), "it is not told any more")

    async def _run(self) -> None:
        while True:
            await self._has_more.wait()
            while self._queue:
                event = self._queue.popleft()
                try:
                    await self._deliver(event)
                except asyncio.CancelledError:
                    self._drop(event, "it is not told any more")
                    raise
                except Exception:  # a bug in one message must not silence the target
                    log.exception("notification_broken")
                    self._count(self.target.label, "failed")
            self._has_more.clear()
            self.idle.set()

    async def _deliver(self, event: Event) -> None:
        """Try until it is known, or there is no hope."""
        tried = 0
        while True:
            refusal, is_final, pause_s = await self._try(event)
            if not refusal:
                self._count(self.target.label, "sent")
                return
            if is_final or tried >= self.target.retries:
                self._count(self.target.label, "failed")
                self._say("notification_failed", event, refusal, tries=tried + 1)
                return
            limit_s = min(BACK_OFF_MAX_S, BACK_OFF_S * 2.0**tried)
            await asyncio.sleep(min(BACK_OFF_MAX_S, max(pause_s, self._random.uniform(0, limit_s))))
            tried += 1

    async def _try(self, event: Event) -> tuple[str, bool, float]:
        """(why it was not taken, whether that is final, how long to leave it at least)."""
        url, body, headers = request(self.target, event, self._now())
        try:
            answer = await self._post(url, body, headers, self.target.timeout)
        except Unanswered as error:
            return str(error), False, 0.0
        if 200 <= answer.status < 300:
            return "", True, 0.0
        is_final = answer.status != _TOO_MANY and answer.status < 500
        return f"status {answer.status}", is_final, answer.retry_after_s

    def _drop(self, event: Event, reason: str) -> None:
        self._count(self.target.label, "dropped")
        self._say("notification_dropped", event, reason)

    def _say(self, name: str, event: Event, reason: str, **fields: object) -> None:
        logs.event(
            log,
            name,
            severity=logging.WARNING,
            target=self.target.label,
            route=event.route,
            kind=event.kind,
            reason=reason,
            **fields,
        )
