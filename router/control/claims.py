"""The lane of feedback: what is posted at the same time is written together, and then seen.

Owns the order: items are written in the order in which they came, a batch is one transaction, and
learners catch up with the log before anybody is answered.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from router.control.counts import Claim, Item
from router.control.state import StateHolder
from router.errors import StateError

_BATCH_MAX: Final = 5000
"""Items in one transaction: about a tenth of a second in which the store does nothing else."""

_Asked = tuple[Sequence[Item], "asyncio.Future[list[Claim]]"]


class Claims:
    """The lane."""

    def __init__(
        self,
        state: StateHolder,
        now: Callable[[], float],
        catch_up: Callable[[], Awaitable[None]],
    ) -> None:
        """`now` is seconds since 1970; `catch_up` has learners see what was written."""
        self._state = state
        self._now = now
        self._catch_up = catch_up
        self._pending: list[_Asked] = []
        self._lane: asyncio.Task[None] | None = None

    async def record(self, items: Sequence[Item]) -> list[Claim]:
        """Write items and have them seen; what became of each.

        Raises:
            StateError: they could not be written; none counts. On a shared store one that was
                written while its answer got lost is a duplicate when it is posted again.
        """
        done: asyncio.Future[list[Claim]] = asyncio.get_running_loop().create_future()
        self._pending.append((items, done))
        if self._lane is None:
            self._lane = asyncio.create_task(self._run(), name="feedback")
        return await done

    async def settle(self) -> None:
        """Return when nothing waits."""
        if self._lane is not None:
            await self._lane

    async def _run(self) -> None:
        try:
            while self._pending:
                batch = self._take()
                try:
                    await self._write(batch)
                except Exception as error:  # whatever failed, nobody may wait for ever
                    for _, done in batch:
                        if not done.done():
                            done.set_exception(error)
        finally:
            self._lane = None

    def _take(self) -> list[_Asked]:
        taken, size = 0, 0
        for items, _ in self._pending:
            if taken and size + len(items) > _BATCH_MAX:
                break
            taken, size = taken + 1, size + len(items)
        batch, self._pending = self._pending[:taken], self._pending[taken:]
        return batch

    async def _write(self, batch: Sequence[_Asked]) -> None:
        if self._state.store is None:
            raise StateError("no state store is open")
        flat = [item for items, _ in batch for item in items]
        claims = iter(await self._state.store.claim(flat, int(self._now())))
        await self._catch_up()
        for items, done in batch:
            found = [next(claims) for _ in items]
            if not done.done():
                done.set_result(found)
