"""The set of workers: started, replaced when they die, told of a new config all together, drained.

Owns one slot per worker; knows nothing of what a config means. Strategy:

1. Each slot is a task that spawns a worker, brings it to the current generation, waits for its
   death and goes round again, after a back-off that doubles while workers die young.
2. A new config is two calls: `prepare` asks every serving worker for a trial, `commit` or `discard`
   ends it. What happens between the two (one assignment in control) is the caller's.
3. A worker that was not serving when a trial began takes no part in it. Whoever joins late prepares
   again until it is at the generation that is current when it is done.
4. Control's copies of the listening sockets are closed when the drain begins: a copy is there for
   replacements only.
5. During the first start a death is the end of the program: its reason is a mistake of
   installation or config, which a loop of restarts would hide.
"""

import asyncio
import contextlib
import itertools
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

from router import logs
from router.channel import Message
from router.control.sockets import BACKLOG
from router.control.worker import Launch, Worker, WorkerEvents, WorkerGone, WorkerState
from router.errors import StartError
from router.messages import (
    Commit,
    Committed,
    Discard,
    Drain,
    Drained,
    FlushStats,
    Hello,
    Prepare,
    Prepared,
    Stats,
)

BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 5.0
SETTLED_S: Final = 30.0
"""A worker that lived this long dies with a clean record: the back-off starts again."""
ANSWER_TIMEOUT_S: Final = 10.0
"""How long a worker may take over `Prepare` or `Commit`."""
START_TIMEOUT_S: Final = 30.0
KILL_AFTER_S: Final = 1.0
"""Past the drain deadline, what is left is killed."""

log = logging.getLogger(__name__)


class Supervisor:
    """All workers of the program."""

    def __init__(
        self,
        launch: Launch,
        listeners: Sequence[socket.socket],
        current: Callable[[], Prepare],
        events: WorkerEvents,
        on_death: Callable[[Worker], None],
    ) -> None:
        """`current` yields the committed config with the weights and health of this moment."""
        self.restarts = 0
        self._launch = launch
        self._listeners = listeners
        self._current = current
        self._events = events
        self._on_death = on_death
        self._workers: dict[int, Worker] = {}
        self._slots: list[asyncio.Task[None]] = []
        self._is_started = False
        self._draining = asyncio.Event()
        self._tickets = itertools.count(1)

    # start and stop

    async def start(self) -> None:
        """Start every worker; returns when all accept connections.

        Raises:
            StartError: one died, refused the config, or took longer than `START_TIMEOUT_S`.
        """
        joined = [asyncio.get_running_loop().create_future() for _ in self._listeners]
        self._slots = [
            asyncio.create_task(self._keep(slot, future), name=f"worker-{slot}")
            for slot, future in enumerate(joined)
        ]
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await asyncio.gather(*joined)
        except TimeoutError:
            raise StartError(f"workers were not ready within {START_TIMEOUT_S:g} s") from None
        self._is_started = True

    async def drain(self, pre_stop_s: float, timeout_s: float) -> int:
        """Let workers finish and leave, kill what is left at the deadline; how many were cut."""
        self._stop_replacing()
        patience_s = pre_stop_s + timeout_s + KILL_AFTER_S
        question = Drain(pre_stop_s, timeout_s)
        for worker in self._alive():
            worker.enter(WorkerState.DRAINING)
        answers = await _all(
            worker.ask(question, Drained, 0, patience_s) for worker in self._alive()
        )
        for answer in answers:
            if isinstance(answer, TimeoutError):
                log.warning("workers_killed_at_deadline")
                self.kill()
        # an answer is followed by the exit; a worker that forgets to is not waited for
        if self._slots:
            _, late = await asyncio.wait(self._slots, timeout=KILL_AFTER_S)
            self.kill()
            if late:
                await asyncio.wait(late)
        return sum(answer.cut for answer in answers if isinstance(answer, Drained))

    def kill(self) -> None:
        """SIGKILL every worker; none is replaced."""
        self._stop_replacing()
        for worker in self._alive():
            worker.kill()

    async def close(self) -> None:
        """Kill what is left and wait for it."""
        self.kill()
        for task in self._slots:
            task.cancel()
        await asyncio.gather(*self._slots, return_exceptions=True)
        await asyncio.gather(*(worker.exited() for worker in self._workers.values()))

    # config

    async def prepare(self, trial: Prepare) -> tuple[str, ...]:
        """Have every serving worker build `trial`; what they object to, empty when all agree."""
        workers = self._serving()
        for worker in workers:
            worker.begin_trial(trial.generation)
        answers = await _all(
            worker.ask(trial, Prepared, trial.generation, ANSWER_TIMEOUT_S) for worker in workers
        )
        problems: list[str] = []
        for worker, answer in zip(workers, answers, strict=True):
            if isinstance(answer, TimeoutError):
                problems.append(
                    f"worker {worker.slot} did not build it within {ANSWER_TIMEOUT_S:g} s"
                )
            elif isinstance(answer, Prepared) and answer.error is not None:
                problems.append(f"worker {worker.slot}: {answer.error}")
        return tuple(dict.fromkeys(problems))

    async def commit(self, generation: int) -> None:
        """Have every worker that prepared `generation` swap to it."""
        workers = [worker for worker in self._alive() if worker.prepared == generation]
        answers = await _all(self._commit(worker, generation) for worker in workers)
        for worker, answer in zip(workers, answers, strict=True):
            if isinstance(answer, TimeoutError):  # it cannot be left on the old config
                logs.event(
                    log,
                    "worker_did_not_commit",
                    severity=logging.ERROR,
                    worker=worker.slot,
                    generation=generation,
                )
                worker.kill()

    def discard(self, generation: int) -> None:
        """Have every worker forget the trial `generation`."""
        for worker in self._alive():
            if worker.prepared == generation:
                worker.send(Discard(generation))
                worker.end_trial()

    # telling and asking all

    def push(self, message: Message) -> None:
        """Tell every worker of new weights or endpoint health."""
        for worker in self._alive():
            worker.push(message)

    async def flush(self, timeout_s: float) -> None:
        """Have every serving worker send its `Stats` now; gives up on those slower than that."""
        question = FlushStats(next(self._tickets))
        await _all(
            worker.ask(question, Stats, question.ticket, timeout_s) for worker in self._serving()
        )

    def workers(self) -> tuple[Worker, ...]:
        """The latest worker of each slot, alive or not."""
        return tuple(self._workers[slot] for slot in sorted(self._workers))

    # one slot

    async def _keep(self, slot: int, joined: asyncio.Future[None]) -> None:
        backoff_s = BACKOFF_FIRST_S
        while not self._draining.is_set():
            try:
                worker = await Worker.spawn(slot, self._launch, self._listeners[slot], self._events)
            except OSError as error:
                _fail(joined, f"cannot start worker {slot}: {error}")
                logs.event(log, "worker_not_started", severity=logging.ERROR, error=str(error))
            else:
                self._workers[slot] = worker
                if self._draining.is_set():
                    worker.kill()
                problem = await self._join(worker)
                if problem is None and not joined.done():
                    joined.set_result(None)
                status = await worker.exited()
                self._on_death(worker)
                if self._draining.is_set():
                    break
                self._report_death(worker, status, problem)
                _fail(joined, problem or f"worker {slot} {_ending(status)} before it was ready")
                if worker.age_s >= SETTLED_S:
                    backoff_s = BACKOFF_FIRST_S
            if joined.cancelled() or joined.exception() is not None:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._draining.wait(), backoff_s)
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)
            self.restarts += 1

    async def _join(self, worker: Worker) -> str | None:
        """Bring a new worker to the current generation; or kill it, and say what was wrong."""
        try:
            await worker.ask(None, Hello, 0, START_TIMEOUT_S)
            while worker.generation != (trial := self._current()).generation:
                worker.begin_trial(trial.generation)
                answer = await worker.ask(trial, Prepared, trial.generation, ANSWER_TIMEOUT_S)
                if answer.error is not None:
                    worker.kill()
                    return f"worker {worker.slot} refused the config: {answer.error}"
                self._listeners[worker.slot].listen(BACKLOG)
                await self._commit(worker, trial.generation)
        except WorkerGone:
            return None if self._is_started else await _last_words(worker)
        except TimeoutError:
            worker.kill()
            return f"worker {worker.slot} did not get ready in time"
        if not self._draining.is_set():
            worker.enter(WorkerState.SERVING)
        return None

    async def _commit(self, worker: Worker, generation: int) -> None:
        worker.send(Commit(generation))
        worker.end_trial()  # repeats what the trial did not know, now that it is in force
        await worker.ask(None, Committed, generation, ANSWER_TIMEOUT_S)
        worker.generation = generation

    def _report_death(self, worker: Worker, status: int, problem: str | None) -> None:
        logs.event(
            log,
            "worker_died",
            severity=logging.ERROR,
            worker=worker.slot,
            pid=worker.pid,
            reason=problem or _ending(status),
            lived_s=round(worker.age_s, 3),
        )

    def _stop_replacing(self) -> None:
        """From here on only workers hold listening sockets: when one stops accepting, newcomers
        are refused instead of waiting in a queue that nobody reads."""
        self._draining.set()
        for listener in self._listeners:
            listener.close()

    def _alive(self) -> list[Worker]:
        return [w for w in self._workers.values() if w.state is not WorkerState.GONE]

    def _serving(self) -> list[Worker]:
        return [w for w in self._workers.values() if w.state is WorkerState.SERVING]


async def _all(questions: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Every answer, or the `WorkerGone` or `TimeoutError` in its place."""
    answers = await asyncio.gather(*questions, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, WorkerGone | TimeoutError):
            raise answer
    return answers


async def _last_words(worker: Worker) -> str:
    return f"worker {worker.slot} {_ending(await worker.exited())} before it was ready"


def _ending(status: int) -> str:
    """`exited with status 1`, `was killed by SIGSEGV`."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was killed by {name}"


def _fail(joined: asyncio.Future[None], reason: str) -> None:
    if not joined.done():
        joined.set_exception(StartError(reason))
