"""One worker's place: filled, filled again when the worker dies, handed on in a restart.

Owns the processes of one slot; knows nothing of the other slots. Strategy:

1. `keep` is the slot's task: it fills the place and waits for the death of whoever holds it. A
   worker that had served for a while is replaced at once, one that died young after a back-off
   that doubles.
2. Joining is a loop: whoever joins prepares and commits until it is at the generation that is
   current when it is done.
3. In a restart the successor serves before the earlier worker is told to leave; both accept from
   the slot's one listening socket, so no connection is between them.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from router import logs
from router.control.spawner import Spawner
from router.control.worker import Death, Worker, WorkerGone, WorkerState, ending
from router.errors import StartError
from router.messages import Commit, Committed, Drain, Drained, Hello, Prepare, Prepared

BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 5.0
SETTLED_S: Final = 1.0
"""A worker that served this long is replaced at once. Starting one costs a third of a second of
CPU, so one that dies each second costs its slot no more than that."""
ANSWER_TIMEOUT_S: Final = 10.0
"""How long a worker may take over `Prepare` or `Commit`."""
START_TIMEOUT_S: Final = 30.0
KILL_AFTER_S: Final = 1.0
"""Past the drain deadline, what is left is killed."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Shared:
    """What all slots of a program have in common."""

    spawner: Spawner
    current: Callable[[], Prepare]
    on_death: Callable[[Worker], None]
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    is_started: bool = False
    restarts: int = 0
    deaths: Counter[tuple[str, ...]] = field(default_factory=Counter)


class Slot:
    """The place of worker `number`."""

    def __init__(self, number: int, shared: Shared) -> None:
        self.number = number
        self.worker: Worker | None = None
        """The latest that holds the place, alive or not."""
        self._shared = shared
        self._processes: list[Worker] = []
        self._filling = asyncio.Lock()
        self._burials: set[asyncio.Task[None]] = set()

    def alive(self) -> list[Worker]:
        """Every process of this slot: in a restart there are two, or more."""
        return [one for one in self._processes if one.state is not WorkerState.GONE]

    def shown(self) -> list[Worker]:
        """The latest that holds the place, alive or not, and those that still leave it."""
        leaving = [one for one in self.alive() if one is not self.worker and one.is_leaving]
        return [*([] if self.worker is None else [self.worker]), *leaving]

    async def keep(self, joined: asyncio.Future[None]) -> None:
        """Fill the place until the program drains; `joined` is told how the first time went."""
        shared = self._shared
        backoff_s = 0.0
        while not shared.draining.is_set():
            worker, problem = await self._fill()
            if problem is None and not joined.done():
                joined.set_result(None)
            if worker is not None:
                await worker.exited()
                if worker is not self.worker:
                    continue  # a restart put another there
            if shared.draining.is_set():
                return
            if not joined.done():
                joined.set_exception(StartError(problem or "worker not started"))
            if joined.cancelled() or joined.exception() is not None:
                return
            if worker is not None and worker.served_s >= SETTLED_S:
                backoff_s = 0.0
            else:
                backoff_s = min(max(BACKOFF_FIRST_S, 2 * backoff_s), BACKOFF_MAX_S)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(shared.draining.wait(), backoff_s)
            shared.restarts += 1

    async def replace(self) -> tuple[Worker | None, str | None]:
        """Have a new worker serve in the place of the one that does.

        Returns the earlier one, still serving but out of place, and what was wrong: then nothing
        has changed.
        """
        async with self._filling:
            try:
                successor = await self._spawn()
            except OSError as error:
                return None, f"cannot start worker {self.number}: {error}"
            problem = await self._join(successor)
            if problem is None and self._shared.draining.is_set():
                problem = "the program is stopping"
            if problem is not None:
                successor.kill()
                return None, problem
            earlier, self.worker = self.worker, successor
            return earlier, None

    async def bring_up(self, worker: Worker) -> str | None:
        """Bring a worker to the current generation; or kill it, and say what was wrong."""
        name = f"worker {self.number}"
        try:
            while worker.generation != (trial := self._shared.current()).generation:
                worker.begin_trial(trial.generation)
                answer = await worker.ask(trial, Prepared, trial.generation, ANSWER_TIMEOUT_S)
                if answer.error is not None:
                    worker.kill(Death.REFUSED, f"refused the config: {answer.error}")
                    return f"{name} refused the config: {answer.error}"
                await commit(worker, trial.generation)
        except WorkerGone:
            return f"{name} {ending(await worker.exited())} before it was ready"
        except TimeoutError:
            worker.kill(Death.LATE, "did not get ready in time")
            return f"{name} did not get ready in time"
        return None

    async def close(self) -> None:
        """Wait for every process."""
        await asyncio.gather(*self._burials)

    async def _fill(self) -> tuple[Worker | None, str | None]:
        """The worker that holds the place, a new one if need be, and what is wrong with it."""
        async with self._filling:
            if self.worker is not None and self.worker.state is not WorkerState.GONE:
                return self.worker, None
            try:
                worker = self.worker = await self._spawn()
            except OSError as error:
                logs.event(log, "worker_not_started", severity=logging.ERROR, error=str(error))
                return None, f"cannot start worker {self.number}: {error}"
            if self._shared.draining.is_set():
                worker.kill()
            return worker, await self._join(worker)

    async def _spawn(self) -> Worker:
        worker = await self._shared.spawner.take(self.number)
        self._processes.append(worker)
        task = asyncio.create_task(self._bury(worker))
        self._burials.add(task)
        task.add_done_callback(self._burials.discard)
        return worker

    async def _join(self, worker: Worker) -> str | None:
        """Have a new worker serve; or kill it, and say what was wrong."""
        try:
            await worker.ask(None, Hello, 0, START_TIMEOUT_S)
        except WorkerGone:
            return f"worker {self.number} {ending(await worker.exited())} before it was ready"
        except TimeoutError:
            worker.kill(Death.LATE, "did not get ready in time")
            return f"worker {self.number} did not get ready in time"
        problem = await self.bring_up(worker)
        if problem is None and not self._shared.draining.is_set():
            worker.enter(WorkerState.SERVING)
            if self._shared.is_started:
                self._shared.spawner.restock()
        return problem

    async def _bury(self, worker: Worker) -> None:
        status = await worker.exited()
        self._processes.remove(worker)
        self._shared.on_death(worker)
        if self._shared.draining.is_set() or (worker.is_leaving and status == 0):
            return
        death = worker.death(status)
        self._shared.deaths[death,] += 1
        logs.event(
            log,
            "worker_died",
            severity=logging.ERROR,
            worker=worker.slot,
            pid=worker.pid,
            reason=worker.epitaph(status),
            served_s=round(worker.served_s, 3),
        )


async def commit(worker: Worker, generation: int) -> None:
    """Have a worker swap to what it prepared.

    Raises:
        WorkerGone, TimeoutError: it did not.
    """
    worker.send(Commit(generation))
    worker.end_trial()  # repeats what the trial did not know, now that it is in force
    answer = await worker.ask(None, Committed, generation, ANSWER_TIMEOUT_S)
    if answer.error is None:
        worker.generation = generation
    else:
        worker.kill(Death.REFUSED, f"did not swap to the config: {answer.error}")


async def retire(worker: Worker, timeout_s: float) -> None:
    """Have a worker leave whose successor serves, within `timeout_s`."""
    question = Drain(0.0, timeout_s, has_successor=True)
    try:
        await worker.ask(question, Drained, 0, timeout_s + KILL_AFTER_S)
        await asyncio.wait_for(worker.exited(), KILL_AFTER_S)
    except TimeoutError:
        worker.kill(Death.LATE, "did not leave in time")
    except WorkerGone:
        pass  # sooner than it was asked to
