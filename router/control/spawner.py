"""Starts worker processes, and keeps one started ahead.

A Python process takes a third of a second to import what a worker needs. The spare has done so, and
waits: a dead worker's place is taken as soon as its death is known. Only one is kept; when several
workers die at once, the others' replacements are started then.
"""

import asyncio
import logging
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from router import logs
from router.control.worker import Launch, Worker, WorkerEvents, WorkerState, ending

RESTOCK_S: Final = 5.0
"""After a spare died, or could not be started, the next is tried so much later."""

log = logging.getLogger(__name__)


class Spawner:
    """The source of worker processes for every slot."""

    def __init__(
        self, launch: Launch, listeners: Sequence[socket.socket], events: WorkerEvents
    ) -> None:
        self.launch = launch
        self._listeners = listeners
        self._events = events
        self._spare: Worker | None = None
        self._starting: asyncio.Task[None] | None = None
        self._watching: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None

    async def take(self, slot: int) -> Worker:
        """A process for `slot`: the spare, or a new one.

        Raises:
            OSError: it cannot be started.
        """
        worker, self._spare = self._spare, None
        if worker is None or worker.state is WorkerState.GONE:
            worker = await Worker.spawn(self.launch, self._listeners, self._events)
        worker.take_slot(slot)
        return worker

    def restock(self) -> None:
        """See to it that there is a spare, if the program has one at all."""
        if self._again is not None:
            self._again.cancel()
        if self.launch.has_spare and self._spare is None and self._starting is None:
            self._starting = asyncio.create_task(self._start_spare(), name="spare")

    async def discard(self) -> None:
        """End the spare: it holds listening sockets, and what it imported may be out of date."""
        if self._again is not None:
            self._again.cancel()
        if self._starting is not None:  # not cancelled, or the process would be nobody's
            await asyncio.gather(self._starting, return_exceptions=True)
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.kill()
            await spare.exited()

    async def close(self) -> None:
        """End the spare for good."""
        self.launch = replace(self.launch, has_spare=False)
        await self.discard()
        for task in self._watching:
            task.cancel()

    async def _start_spare(self) -> None:
        try:
            self._spare = spare = await Worker.spawn(self.launch, self._listeners, self._events)
        except OSError as error:
            self._lost(str(error))
        else:
            task = asyncio.create_task(self._watch(spare))
            self._watching.add(task)
            task.add_done_callback(self._watching.discard)
        finally:
            self._starting = None

    async def _watch(self, spare: Worker) -> None:
        status = await spare.exited()
        if self._spare is spare:  # nobody took it
            self._spare = None
            self._lost(ending(status))

    def _lost(self, reason: str) -> None:
        logs.event(log, "spare_worker_lost", severity=logging.WARNING, reason=reason)
        self._again = asyncio.get_running_loop().call_later(RESTOCK_S, self.restock)
