"""One coarse clock for every deadline of a worker.

Strategy: an item states its deadline in an attribute, which costs a request one store. It sits in
the slot of some earlier or equal time; when that slot comes up the wheel looks at the attribute and
either calls the item or moves it on. So a kept-alive connection is touched by the wheel about once
per timeout, not once per request. When many are due at once other events come in between.
"""

import asyncio
from collections import deque
from math import inf
from time import monotonic
from typing import Final, Protocol

TICK_S: Final = 0.1
"""Deadlines are kept to within this much, late."""
BATCH_MAX: Final = 32
"""Items looked at before other events get their turn: refusing 1,000 slow clients takes 40 to 200
ms, which must not be the delay of everybody else."""


class Timed(Protocol):
    """What the wheel holds. `deadline` and `slot_s` are `time.monotonic` seconds.

    The owner may move `deadline` later with a plain store; to move it before `slot_s` it must call
    `Wheel.arm`.
    """

    deadline: float
    slot_s: float

    def on_deadline(self) -> None:
        """The deadline has passed. The item is no longer in the wheel."""


class Wheel:
    """Slots of items by tick."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[int, set[Timed]] = {}
        self._due: deque[Timed] = deque()
        self._done_tick = int(monotonic() / TICK_S)
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Wheel [{len(self._due) + sum(map(len, self._slots.values()))} items]>"

    def start(self) -> None:
        """Begin to turn."""
        self._timer = self._loop.call_later(TICK_S, self._turn)

    def stop(self) -> None:
        """Stop turning and forget every item."""
        if self._timer is not None:
            self._timer.cancel()
        self._slots.clear()
        self._due.clear()

    def arm(self, item: Timed, deadline: float) -> None:
        """Set `item`'s deadline, moving it to an earlier slot when it must be looked at sooner."""
        item.deadline = deadline
        if deadline < item.slot_s:
            self._take_out(item)
            self._put(item, deadline)

    def drop(self, item: Timed) -> None:
        """Forget `item`."""
        item.deadline = inf
        self._take_out(item)

    def _put(self, item: Timed, when_s: float) -> None:
        tick = max(int(when_s / TICK_S) + 1, self._done_tick + 1)
        item.slot_s = tick * TICK_S
        self._slots.setdefault(tick, set()).add(item)

    def _take_out(self, item: Timed) -> None:
        if item.slot_s != inf:
            self._slots.get(round(item.slot_s / TICK_S), set()).discard(item)
            item.slot_s = inf

    def _turn(self) -> None:
        self._timer = self._loop.call_later(TICK_S, self._turn)
        now = monotonic()
        now_tick = int(now / TICK_S)
        if now_tick - self._done_tick > 10_000:  # the machine slept: do not walk every tick
            due = sorted(tick for tick in self._slots if tick <= now_tick)
        else:
            due = [tick for tick in range(self._done_tick + 1, now_tick + 1) if tick in self._slots]
        self._done_tick = now_tick
        is_working = bool(self._due)
        for tick in due:
            self._due.extend(self._slots.pop(tick))
        if not is_working:
            self._look()

    def _look(self) -> None:
        """Look at some of the items that are due, and at the others after a round of events."""
        due, now = self._due, monotonic()
        for _ in range(min(len(due), BATCH_MAX)):
            item = due.popleft()
            item.slot_s = inf
            if item.deadline <= now:
                item.deadline = inf
                self._call(item)
            elif item.deadline != inf:
                self._put(item, item.deadline)
        if due:
            self._loop.call_soon(self._look)

    def _call(self, item: Timed) -> None:
        """Call `item`. Its failure is reported, and must not cost the others their deadlines."""
        try:
            item.on_deadline()
        except Exception as error:
            self._loop.call_exception_handler(
                {"message": f"{item!r} failed at its deadline", "exception": error}
            )
