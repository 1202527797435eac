"""The control process: puts the parts together, and runs from start to exit.

Strategy:

1. Sockets are bound and workers spawned first; the admin API is imported while workers start.
2. Signals only append to a queue; one plain loop acts on them.
3. SIGTERM: readiness fails, workers drain, exit 0. A second signal: everything is killed at once.
4. Whatever happens, no worker outlives `run`.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

import uvloop

from router import logs
from router.config import Loaded
from router.control.feedback import Feedback
from router.control.health import Health, HttpProbe
from router.control.learning import Learning
from router.control.plane import Phase, Plane, Snapshot
from router.control.problems import problem
from router.control.reload import FIRST_GENERATION, Reloader
from router.control.sockets import address_of, bind_admin, bind_listeners
from router.control.supervisor import Supervisor
from router.control.totals import Totals
from router.control.worker import Launch, Worker, WorkerEvents
from router.messages import (
    EndpointHealth,
    FeedbackAnswer,
    FeedbackRequest,
    Listening,
    Prepare,
    Stats,
    Weights,
)

if TYPE_CHECKING:
    from aiohttp import web

_FEEDBACK_PENDING_MAX: Final = 1024
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Start:
    """What the program is started with. `loaded` was read from `path` with `env`."""

    loaded: Loaded
    path: Path
    env: Mapping[str, str]
    worker_command: Sequence[str]


def serve(start: Start) -> int:
    """Run until stopped. Returns the exit status.

    Raises:
        StartError: it cannot start; nothing is left running.
    """
    return uvloop.run(Program(start).run())


class Program:
    """One run of control."""

    def __init__(self, start: Start) -> None:
        config = start.loaded.config
        self._start = start
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._asked: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None
        self._probe: HttpProbe | None = None
        self._admin_socket = bind_admin(config.admin.listen)
        self._listeners: tuple[socket.socket, ...] = ()
        try:
            self._listeners = bind_listeners(config.listen, _worker_count(config.workers))
        except BaseException:
            self._admin_socket.close()
            raise
        self._plane = self._build_plane()
        self._feedback = Feedback(
            self._plane.learning,
            lambda: self._plane.snapshot.loaded.config.feedback,
            time.time,
            self._count_feedback,
        )
        self._reloader = Reloader(self._plane, start.path, start.env)

    def _build_plane(self) -> Plane:
        loaded = self._start.loaded
        logging_options = loaded.config.logging
        now_s = time.time()
        return Plane(
            listening=Listening(address_of(self._listeners[0]), address_of(self._admin_socket)),
            snapshot=Snapshot(loaded, FIRST_GENERATION, now_s),
            totals=Totals(),
            learning=Learning(self._push, time.time),
            supervisor=Supervisor(
                Launch(self._start.worker_command, logging_options.format, logging_options.level),
                self._listeners,
                self._current,
                WorkerEvents(self._on_stats, self._on_feedback),
                self._on_death,
            ),
            health=Health(
                self._push,
                self._check,
                Random(),  # noqa: S311 - spreads checks in time, guards nothing
            ),
            started_at_s=now_s,
            last_success_at_s=now_s,
        )

    # life

    async def run(self) -> int:
        """Start, serve, stop. Returns the exit status.

        Raises:
            StartError: it cannot start.
        """
        loop = asyncio.get_running_loop()
        for number in (*_STOP_SIGNALS, signal.SIGHUP):
            loop.add_signal_handler(number, self._signals.put_nowait, number)
        try:
            started = asyncio.create_task(self._bring_up(), name="start")
            stop = await self._until_stopped(started)
            if not started.done():
                started.cancel()
                await asyncio.gather(started, return_exceptions=True)
                logs.event(log, "stopped_while_starting", signal=stop.name)
                return 0
            return await self._stop()
        finally:
            await self._close()

    async def _bring_up(self) -> None:
        plane = self._plane
        config = plane.snapshot.loaded.config
        plane.learning.adopt(await plane.learning.build(config))
        workers = asyncio.create_task(plane.supervisor.start(), name="start-workers")
        try:
            await asyncio.sleep(0.01)  # they are spawned; the imports below run beside theirs
            await self._open_admin()
            await workers
        finally:
            workers.cancel()
        plane.health.adopt(config)
        plane.phase = Phase.READY
        self._background(plane.learning.run(self._window_s), "learning")
        self._background(self._watch(), "watch")
        logs.event(
            log,
            "ready",
            listen=plane.listening.listen,
            admin=plane.listening.admin,
            workers=len(self._listeners),
            generation=plane.snapshot.generation,
        )

    async def _open_admin(self) -> None:
        from router.control import admin  # late: costs a fifth of a second that workers need

        api = admin.AdminApi(
            self._plane,
            self._reloader,
            self._feedback,
            lambda: self._plane.snapshot.loaded.config.feedback,
            self._plane.snapshot.loaded.config.admin.token,
        )
        self._runner = await admin.start(api.build(), self._admin_socket)

    async def _until_stopped(self, started: asyncio.Task[None]) -> signal.Signals:
        """Act on signals until one stops the program.

        Raises:
            StartError: `started` failed.
        """
        while True:
            asked = asyncio.create_task(self._signals.get())
            waiting = {asked} if started.done() else {asked, started}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if started.done() and started.exception() is not None:
                asked.cancel()
                started.result()
            if not asked.done():
                asked.cancel()
                continue
            number = asked.result()
            if number in _STOP_SIGNALS:
                logs.event(log, "stopping", signal=number.name)
                return number
            if started.done():
                self._background(self._reloader.reload("signal"), "reload")

    async def _stop(self) -> int:
        """Drain; a second signal ends it at once."""
        self._plane.phase = Phase.DRAINING
        config = self._plane.snapshot.loaded.config
        drain = asyncio.create_task(
            self._plane.supervisor.drain(config.pre_stop, config.drain_timeout)
        )
        while not drain.done():
            asked = asyncio.create_task(self._signals.get())
            await asyncio.wait({drain, asked}, return_when=asyncio.FIRST_COMPLETED)
            if asked.done() and (number := asked.result()) in _STOP_SIGNALS:
                logs.event(log, "stopped_at_once", severity=logging.WARNING, signal=number.name)
                drain.cancel()
                return 128 + number
            asked.cancel()
        logs.event(log, "stopped", cut=drain.result())
        return 0

    async def _close(self) -> None:
        plane = self._plane
        await plane.supervisor.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._asked, return_exceptions=True)
        await plane.health.close()
        if self._probe is not None:
            await self._probe.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self._admin_socket.close()
        await plane.learning.close()

    # background

    def _background(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._background_ended)

    def _background_ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task_failed", exc_info=error)

    async def _watch(self) -> None:
        from router.config.watch import changes  # late: not needed to be ready

        known = self._start.loaded.digest  # so a change during the start is seen too
        async with contextlib.aclosing(changes(self._start.path, digest=known)) as seen:
            async for _ in seen:
                await self._reloader.reload("file")

    def _window_s(self) -> float:
        return self._plane.snapshot.loaded.config.feedback.window

    async def _check(self, url: str, timeout_s: float) -> str | None:
        if self._probe is None:
            self._probe = HttpProbe()
        return await self._probe(url, timeout_s)

    # to and from workers

    def _push(self, message: Weights | EndpointHealth) -> None:
        self._plane.supervisor.push(message)

    def _current(self) -> Prepare:
        plane = self._plane
        return Prepare(
            generation=plane.snapshot.generation,
            document=plane.snapshot.loaded.document,
            weights=plane.learning.weights(),
            down=plane.health.down(plane.snapshot.loaded.config),
            receipt_key=plane.learning.receipt_key,
        )

    def _on_stats(self, worker: Worker, stats: Stats) -> None:
        self._plane.totals.add(stats)

    def _on_death(self, worker: Worker) -> None:
        self._plane.totals.forget_gauges(worker.slot)

    def _on_feedback(self, worker: Worker, request: FeedbackRequest) -> None:
        if len(self._asked) >= _FEEDBACK_PENDING_MAX:
            busy = problem(503, "overloaded", "too much feedback is waiting to be written")
            worker.send(FeedbackAnswer(request.ticket, busy.status, busy.content_type, busy.body))
            return
        task = asyncio.create_task(self._answer_feedback(worker, request))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _answer_feedback(self, worker: Worker, request: FeedbackRequest) -> None:
        try:
            answer = await self._feedback.answer(request.content_type, request.body.encode())
        except Exception:  # a bug here must not leave a client waiting
            log.exception("feedback_failed")
            answer = problem(500, "internal", "the call failed; the log says why")
        worker.send(FeedbackAnswer(request.ticket, answer.status, answer.content_type, answer.body))

    def _count_feedback(self, route: str, result: str) -> None:
        self._plane.feedback[route, result] += 1


def _worker_count(workers: int | str) -> int:
    return workers if isinstance(workers, int) else len(os.sched_getaffinity(0))
