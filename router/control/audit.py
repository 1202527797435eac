"""The audit log: who changed what, when and why. `GET /events` reads it.

Owns the order of lines and nothing of what they mean. Rollouts write theirs with their state (see
`rollouts.py`); everything else that an operator changes is written here. Strategy:

1. With a store open, lines go there. Without one, or while it fails, they wait here; the oldest
   are dropped beyond `WAITING_MAX`.
2. No change waits for its line: writing never fails, and is tried again with the next line or
   question.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from router import logs
from router.control.state import StateHolder
from router.errors import StateError
from router.rollouts.state import Event

WAITING_MAX: Final = 1000
"""Lines kept in memory: a router without a store has no other, and rarely has more."""

log = logging.getLogger(__name__)


class Audit:
    """The lines of one program."""

    def __init__(
        self,
        state: StateHolder,
        generation: Callable[[], int],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`generation` is that of the config in force; `now` is seconds since 1970."""
        self._state = state
        self._generation = generation
        self._now = now
        self._waiting: deque[Event] = deque(maxlen=WAITING_MAX)
        self._last = 0
        self._lock = asyncio.Lock()
        self._is_failing = False

    async def note(self, kind: str, by: str, reason: str, *, route: str = "") -> None:
        """Write that somebody did something at this moment. Never fails."""
        await self.add([Event(route, kind, by, self._now(), reason, self._generation())])

    async def add(self, events: Sequence[Event]) -> None:
        """Write lines that say themselves when they were. Never fails."""
        for event in events:
            self._last += 1
            self._waiting.append(replace(event, seq=self._last))
        try:
            await self._write()
        except StateError as error:
            if not self._is_failing:
                logs.event(log, "audit_not_written", severity=logging.ERROR, error=str(error))
            self._is_failing = True

    async def events(self, after: int | None, limit: int, route: str | None) -> list[Event]:
        """Lines with a higher `seq` than `after`, oldest first; without `after` the last.

        Raises:
            StateError: the store cannot be read or written.
        """
        await self._write()
        if self._state.store is not None:
            return await self._state.store.events(after=after, limit=limit, route=route)
        found = [
            event
            for event in self._waiting
            if event.seq > (after or 0) and route in (None, event.route)
        ]
        return found[-limit:] if after is None else found[:limit]

    async def _write(self) -> None:
        """Give what waits to the store, if one is open."""
        async with self._lock:
            store = self._state.store
            if store is None or not self._waiting:
                return
            written = tuple(self._waiting)
            await store.append_events(written)
            self._is_failing = False
            for event in written:  # none of them is here any more when too many came meanwhile
                if self._waiting and self._waiting[0] is event:
                    self._waiting.popleft()
