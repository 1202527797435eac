"""The control process: puts the parts together, and runs from start to exit.

Strategy:

1. Sockets are bound and workers spawned first; the admin API is imported while workers start.
2. Signals only append to a queue; one plain loop acts on them.
3. SIGTERM: readiness fails, workers drain, exit 0. A second signal: everything is killed at once.
4. Whatever happens, no worker outlives `run`. (Only a control that is killed leaves them behind:
   they hold the listening sockets for the next one, see `handover.py`.)
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

import uvloop

from router import handover, logs
from router.config import Loaded
from router.control.certificates import Certificates
from router.control.desk import FeedbackDesk
from router.control.endpoints import Endpoints
from router.control.feedback import Feedback
from router.control.files import check_open_files, raise_open_files
from router.control.learning import Learning
from router.control.notify import Notifier
from router.control.plane import Phase, Plane, Snapshot
from router.control.probe import EndpointProbe, Target
from router.control.reload import FIRST_GENERATION, Reloader
from router.control.resolver import look_up
from router.control.sockets import bind_admin, bind_listeners
from router.control.supervisor import RestartRefused, Supervisor
from router.control.totals import Totals
from router.control.worker import Launch, Worker, WorkerEvents
from router.handover import address_of
from router.messages import (
    Ejection,
    EndpointState,
    Listening,
    PemFiles,
    Prepare,
    Stats,
    Weights,
)

if TYPE_CHECKING:
    from aiohttp import web

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_STOP_MARGIN_S: Final = 5.0
"""More than what is killed at the deadline takes to end."""

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
    workers = _worker_count(start.loaded.config.workers)
    check_open_files(raise_open_files(), workers)
    return uvloop.run(Program(start, workers).run())


class Program:
    """One run of control."""

    def __init__(self, start: Start, workers: int) -> None:
        config = start.loaded.config
        self._start = start
        self._notifier = Notifier(start.env)
        self._cut = 0
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._runner: web.AppRunner | None = None
        self._probe: EndpointProbe | None = None
        self._admin_socket = bind_admin(config.admin.listen)
        self._taken = handover.take(config.listen, workers)
        self._listeners: tuple[socket.socket, ...] = ()
        try:
            self._listeners = bind_listeners(config.listen, workers, self._taken)
        except BaseException:
            self._admin_socket.close()
            raise
        self._plane = self._build_plane()
        self._holder = handover.Holder(
            self._plane.listening.listen, lambda: self._listeners, lambda: None
        )
        self._feedback = Feedback(
            self._plane.learning,
            lambda: self._plane.snapshot.loaded.config.feedback,
            time.time,
            self._count_feedback,
        )
        self._desk = FeedbackDesk(self._feedback)
        self._reloader = Reloader(self._plane, start.path, start.env)

    def _build_plane(self) -> Plane:
        loaded = self._start.loaded
        options = loaded.config.logging
        has_spare = loaded.config.spare_worker
        now_s = time.time()
        return Plane(
            listening=Listening(address_of(self._listeners[0]), address_of(self._admin_socket)),
            snapshot=Snapshot(loaded, FIRST_GENERATION, now_s),
            totals=Totals(),
            learning=Learning(self._push, time.time),
            supervisor=Supervisor(
                Launch(self._start.worker_command, options.format, options.level, has_spare),
                self._listeners,
                self._current,
                WorkerEvents(
                    self._on_stats, lambda *asked: self._desk.on_feedback(*asked), self._on_ejection
                ),
                self._on_death,
                lambda: self._plane.snapshot.loaded.config.hang_timeout,
            ),
            endpoints=Endpoints(
                self._push,
                self._check,
                look_up,
                Random(),  # noqa: S311 - spreads checks in time, guards nothing
            ),
            certificates=Certificates(self._push, loaded),
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
        for number in (*_STOP_SIGNALS, signal.SIGHUP, signal.SIGUSR2):
            loop.add_signal_handler(number, self._signals.put_nowait, number)
        try:
            started = asyncio.create_task(self._bring_up(), name="start")
            stop = await self._until_stopped(started)
            if not started.done():
                started.cancel()
                await asyncio.gather(started, return_exceptions=True)
                logs.event(log, "stopped_while_starting", signal=stop.name)
                return 0
            status = await self._stop()
        finally:
            await self._close()
        if status == 0:
            logs.event(log, "stopped", cut=self._cut)
        return status

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
        plane.endpoints.adopt(config)
        plane.phase = Phase.READY
        self._background(plane.learning.run(self._window_s), "learning")
        self._background(self._watch(), "watch")
        watching = plane.certificates.watch(self._reloader.alone)
        self._background(watching, "certificates")
        self._background(self._notifier.watch(), "watchdog")
        self._holder.open()
        await asyncio.to_thread(handover.announce_ready, plane.listening.listen)
        self._notifier.ready(self._summary())
        logs.event(
            log,
            "ready",
            taken_over=len(self._taken),
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
            if started.done() and number == signal.SIGUSR2:
                self._background(self._restart(), "restart")
            elif started.done():
                self._background(self._reload("signal"), "reload")

    async def _stop(self) -> int:
        """Drain; a second signal ends it at once."""
        self._plane.phase = Phase.DRAINING
        config = self._plane.snapshot.loaded.config
        self._notifier.stopping(config.pre_stop + config.drain_timeout + _STOP_MARGIN_S)
        drain = asyncio.create_task(
            self._plane.supervisor.drain(
                config.pre_stop, config.drain_timeout, self._give_up_sockets()
            )
        )
        while not drain.done():
            asked = asyncio.create_task(self._signals.get())
            await asyncio.wait({drain, asked}, return_when=asyncio.FIRST_COMPLETED)
            if asked.done() and (number := asked.result()) in _STOP_SIGNALS:
                logs.event(log, "stopped_at_once", severity=logging.WARNING, signal=number.name)
                drain.cancel()
                return 128 + number
            asked.cancel()
        self._cut = drain.result()
        return 0

    def _give_up_sockets(self) -> bool:
        """Hand the listening sockets to nobody from now on; whether another program has them."""
        is_shared = self._holder.has_given or bool(self._taken)
        self._holder.close()
        return is_shared and handover.has_others(self._plane.listening.listen)

    async def _close(self) -> None:
        plane = self._plane
        self._holder.close()
        await plane.supervisor.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._desk.close()
        await plane.endpoints.close()
        if self._probe is not None:
            await self._probe.close()
        if self._runner is not None:
            await self._runner.cleanup()
        await self._reloader.settle()
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
                await self._reload("file")

    async def _reload(self, trigger: str) -> None:
        self._notifier.reloading()
        await self._reloader.reload(trigger)
        if self._plane.phase is Phase.READY:
            self._notifier.ready(self._summary())

    async def _restart(self) -> None:
        with contextlib.suppress(RestartRefused):  # it is logged
            await self._plane.supervisor.restart(self._plane.snapshot.loaded.config.drain_timeout)

    def _summary(self) -> str:
        return f"ready: {len(self._listeners)} workers, config {self._plane.snapshot.generation}"

    def _window_s(self) -> float:
        return self._plane.snapshot.loaded.config.feedback.window

    async def _check(self, target: Target) -> str | None:
        if self._probe is None:
            self._probe = EndpointProbe(self._plane.certificates.of_backend)
        return await self._probe(target)

    # to and from workers

    def _push(self, message: Weights | EndpointState | PemFiles) -> None:
        self._plane.supervisor.push(message)

    def _current(self) -> Prepare:
        plane = self._plane
        return Prepare(
            generation=plane.snapshot.generation,
            document=plane.snapshot.loaded.document,
            weights=plane.learning.weights(),
            endpoints=plane.endpoints.states(plane.snapshot.loaded.config),
            receipt_key=plane.learning.receipt_key,
            pem=plane.certificates.pem,
        )

    def _on_stats(self, worker: Worker, stats: Stats) -> None:
        # by process: during a restart two of them are the same worker
        self._plane.totals.add(replace(stats, worker=worker.pid))
        if worker.generation:  # not a spare, nor one that is being started: these hold nothing
            self._plane.endpoints.on_stats(worker.pid, stats)

    def _on_ejection(self, worker: Worker, ejection: Ejection) -> None:
        self._plane.endpoints.on_ejection(worker.pid, ejection)

    def _on_death(self, worker: Worker) -> None:
        self._plane.totals.forget_gauges(worker.pid)
        self._plane.endpoints.forget_worker(worker.pid)

    def _count_feedback(self, route: str, result: str) -> None:
        self._plane.feedback[route, result] += 1


def _worker_count(workers: int | str) -> int:
    return workers if isinstance(workers, int) else len(os.sched_getaffinity(0))
