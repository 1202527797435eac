"""The state of one worker, and what control tells it.

Owns the snapshot (swapped by one assignment), the pools, the client connections and the end of the
process. Nothing that happens per request waits for anything here.
"""

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable
from email.utils import formatdate
from ipaddress import ip_network
from random import Random
from time import time
from typing import Final

from router import logs
from router.channel import Message
from router.config.model import Config, Feedback, Logging
from router.config.model import Downstream as Limits
from router.data.bindings import Snapshot, bind
from router.data.clients import Clients
from router.data.downstream import Downstream
from router.data.link import ControlLink
from router.data.outbox import Outbox
from router.data.pool import BackendPool
from router.data.stats import WorkerStats
from router.data.wheel import Wheel
from router.errors import Refusal
from router.http1.request import RequestParser
from router.http1.request_body import BodyBounds
from router.messages import (
    Commit,
    Committed,
    Discard,
    Drain,
    Drained,
    EndpointHealth,
    FeedbackAnswer,
    FlushStats,
    Prepare,
    Prepared,
    Weights,
)
from router.table import build

STATS_INTERVAL_S: Final = 1.0
ORPHAN_S: Final = 30.0
"""How long a worker goes on serving without control before it drains."""
_BACKLOG: Final = 4096
"""Connections the kernel queues; it takes the smaller of this and `net.core.somaxconn`."""
_BUSY_S: Final = 1.0
"""Draining: a client that sent its last request less than this ago is thought to send another."""
_GRACE_S: Final = 0.25
"""Draining: how long such a client is waited for."""
_log = logging.getLogger("router.data")


class Worker:
    """One data process."""

    snapshot: Snapshot
    limits: Limits
    feedback: Feedback
    parser: RequestParser
    body_bounds: BodyBounds

    def __init__(self, number: int, listener: socket.socket, channel_end: socket.socket) -> None:
        self.number = number
        self.loop = asyncio.get_running_loop()
        self.wheel = Wheel(self.loop)
        self.outbox = Outbox(self.loop)
        self.stats = WorkerStats()
        self.unrouted = self.stats.tally("", "")
        self.random: Callable[[], float] = Random(secrets.randbits(128)).random  # noqa: S311 - draws variants, keeps no secret
        self.clients = Clients(self.stats)
        self.link = ControlLink(channel_end, self._on_orphaned)
        self.in_flight = 0
        self.date_line = b""
        """A whole `date` line (RFC 9110 section 6.6.1), anew each second."""
        self.is_draining = False
        self._has_stopped_accepting = False
        self.access_sample = 0.0
        self._trial: Snapshot | None = None
        self._building: asyncio.Task[None] | None = None
        self._building_generation = 0
        self._came_meanwhile: list[Message] = []
        """What changes a snapshot and came while the trial was being built."""
        self._is_serving = False
        self._listener = listener
        self._server: asyncio.Server | None = None
        self._id_prefix = secrets.token_hex(8).encode()
        self._ids = 0
        self._nonce_prefix = secrets.randbits(32) << 32
        self._ended = self.loop.create_future()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    # life

    async def run(self) -> None:
        """Serve until drained. Returns when the process should exit."""
        await self.link.open(self.number, self._on_message)
        self.wheel.start()
        self._tick()
        self._report()
        await self._ended
        for timer in self._timers.values():
            timer.cancel()
        self.wheel.stop()
        self._send_stats(0)
        await self.link.farewell(Drained(self.number, self.in_flight))

    def _tick(self) -> None:
        now = time()
        self.date_line = b"date: %b\r\n" % formatdate(now, usegmt=True).encode()
        self._later("clock", 1.0 - now % 1.0, self._tick)

    def _later(self, name: str, delay_s: float, action: Callable[[], object]) -> None:
        self._timers[name] = self.loop.call_later(delay_s, action)

    def _on_message(self, message: Message) -> None:
        if self._building is not None and isinstance(message, Weights | EndpointHealth):
            self._came_meanwhile.append(message)
        match message:
            case Prepare():
                self._prepare(message)
            case Commit():
                self._commit(message)
            case Discard():
                self._discard(message.generation)
            case Weights():
                self._set_weights(message)
            case EndpointHealth():
                self._set_health(message.backend, message.url, message.is_up)
            case FlushStats():
                self._send_stats(message.ticket)
            case FeedbackAnswer():
                self.link.on_feedback_answer(message)
            case Drain():
                self.start_drain(message.pre_stop_s, message.timeout_s)
            case _:
                logs.event(
                    _log, "unexpected_message", severity=logging.ERROR, type=type(message).__name__
                )

    def _on_orphaned(self) -> None:
        """Control is gone: serve on with the last snapshot, then leave."""
        if not self._is_serving:
            self._end()
        elif not self.is_draining:
            logs.event(_log, "control_lost", severity=logging.WARNING, serving_on_s=ORPHAN_S)
            timeout_s = self.snapshot.table.config.drain_timeout
            self._later("orphan", ORPHAN_S, lambda: self.start_drain(0.0, timeout_s))

    # config: prepare, commit, discard

    def _prepare(self, message: Prepare) -> None:
        """Build a trial beside the traffic; one that is not finished gives way."""
        self._forget_trial()
        self._building = self.loop.create_task(self._build(message))
        self._building_generation = message.generation
        self._came_meanwhile = []

    async def _build(self, message: Prepare) -> None:
        error: str | None = None
        try:
            trial = await self._build_trial(message)
        except Exception as failure:
            # whatever is wrong with a trial, traffic goes on and control is told
            error = f"{type(failure).__name__}: {failure}"
        else:
            self._trial = trial
        self._building = None
        for late in self._came_meanwhile:
            self._on_message(late)
        self.link.send(Prepared(message.generation, error))

    async def _build_trial(self, message: Prepare) -> Snapshot:
        """The snapshot of `message`, built in slices: what it takes at once delays requests."""
        config = Config.model_validate(message.document)
        await asyncio.sleep(0)
        table = build(config, message.generation)
        slices = bind(
            table,
            self.snapshot if self._is_serving else None,
            stats=self.stats,
            weights=message.weights,
            receipt_key=bytes.fromhex(message.receipt_key),
            mint=lambda: secrets.token_hex(16),
            random=self.random,
            open_pool=lambda name: BackendPool(
                name, config.backends[name], self.wheel, self.outbox, self.stats, self.random
            ),
        )
        for trial in slices:  # noqa: B007 - the last one is whole
            await asyncio.sleep(0)
        for backend, urls in message.down.items():
            for pool in trial.pools_of(backend):
                for url in urls:
                    pool.set_health(url, False)
        return trial

    def _forget_trial(self) -> None:
        self._trial = None
        if self._building is not None:
            self._building.cancel()
            self._building = None

    def _commit(self, message: Commit) -> None:
        trial, self._trial = self._trial, None
        if trial is None or trial.generation != message.generation:
            logs.event(
                _log, "commit_without_trial", severity=logging.ERROR, generation=message.generation
            )
            return
        earlier = self.snapshot if self._is_serving else None
        self._take_settings(trial.table.config)
        self.snapshot = trial
        if earlier is not None:
            self._follow_logging(earlier.table.config.logging, trial.table.config.logging)
            kept = {id(pool) for pool in trial.all_pools()}
            for pool in earlier.all_pools():
                if id(pool) not in kept:
                    pool.retire()
        if not self._is_serving:
            self._is_serving = True
            self.loop.create_task(self._start_accepting()).add_done_callback(
                lambda task: self._on_accepting(task, message.generation)
            )
        else:
            self.link.send(Committed(message.generation))

    def _take_settings(self, config: Config) -> None:
        self.limits = config.downstream
        self.feedback = config.feedback
        self.access_sample = config.logging.access_sample
        limits = config.downstream
        self.parser = RequestParser(limits.headers, limits.request_line)
        self.body_bounds = BodyBounds(
            limits.body_bytes, limits.trailers, limits.body_rate, limits.body_timeout
        )
        self.clients.trust(tuple(ip_network(item) for item in config.trusted_proxies))

    def _follow_logging(self, earlier: Logging, wanted: Logging) -> None:
        if (earlier.format, earlier.level) != (wanted.format, wanted.level):
            logs.configure(wanted.format, wanted.level, process=f"worker-{self.number}")

    def _discard(self, generation: int) -> None:
        is_building = self._building is not None and self._building_generation == generation
        if is_building or (self._trial is not None and self._trial.generation == generation):
            self._forget_trial()

    async def _start_accepting(self) -> None:
        self._server = await self.loop.create_server(
            lambda: Downstream(self), sock=self._listener, backlog=_BACKLOG
        )

    def _on_accepting(self, task: "asyncio.Task[None]", generation: int) -> None:
        task.result()
        self.link.send(Committed(generation))

    def _set_weights(self, message: Weights) -> None:
        for snapshot in self._snapshots():
            binding = snapshot.binding(message.route)
            if binding is not None and message.version > binding.weights_version:
                binding.weights_version = message.version
                assignment = binding.route.build_assignment(
                    lambda: secrets.token_hex(16), message.weights
                )
                binding.assign = assignment.assign

    def _set_health(self, backend: str, url: str, is_up: bool) -> None:
        for snapshot in self._snapshots():
            for pool in snapshot.pools_of(backend):
                pool.set_health(url, is_up)

    def _snapshots(self) -> list[Snapshot]:
        """The one in force and the trial, as far as there are any."""
        known = [self.snapshot] if self._is_serving else []
        return known if self._trial is None else [*known, self._trial]

    # counting

    def _report(self) -> None:
        self._later("report", STATS_INTERVAL_S, self._report)
        self._send_stats(0)

    def _send_stats(self, ticket: int) -> None:
        self.link.send(self.stats.take(self.number, ticket, self._gauges()))

    def _gauges(self) -> dict[str, float]:
        if not self._is_serving:
            return {}
        mirrors = (mirror for binding in self.snapshot.bindings for mirror in binding.mirrors)
        return {
            "pointsman_downstream_connections": len(self.clients.connections),
            "pointsman_requests_in_flight": self.in_flight,
            "pointsman_upstream_connections": sum(pool.open for pool in self.snapshot.all_pools()),
            "pointsman_shadow_in_flight": sum(mirror.in_flight for mirror in mirrors),
        }

    def count_unparsed(self, refusal: Refusal) -> None:
        """Count a request that was refused before it could be read."""
        self.stats.count_refusal(refusal)
        self.unrouted.observe(refusal.status, 0.0)

    # what exchanges ask for

    def next_request_id(self) -> bytes:
        """32 hex digits: 16 of this worker, 16 counting."""
        self._ids += 1
        return b"%b%016x" % (self._id_prefix, self._ids)

    def next_nonce(self) -> bytes:
        """8 bytes that this worker never gives twice: a random prefix and a count."""
        self._ids += 1
        return (self._nonce_prefix + (self._ids & 0xFFFFFFFF)).to_bytes(8, "big")

    # drain

    def start_drain(self, pre_stop_s: float, timeout_s: float) -> None:
        """Readiness fails now; accepting stops after `pre_stop_s`; all ends `timeout_s` after."""
        if self.is_draining:
            return
        self.is_draining = True
        if pre_stop_s > 0:
            self._later("pre_stop", pre_stop_s, lambda: self._stop_accepting(timeout_s))
        else:
            self._stop_accepting(timeout_s)

    def _stop_accepting(self, timeout_s: float) -> None:
        self._has_stopped_accepting = True
        if self._server is not None:
            self._server.close()
        # a busy client is about to send its next request: it is answered, with `connection: close`
        self.clients.close_idle(_BUSY_S)
        self._later("grace", min(_GRACE_S, timeout_s), self.clients.close_idle)
        self._later("deadline", timeout_s, self._end)
        self.on_connection_lost()

    def on_connection_lost(self) -> None:
        """A client's connection is gone: perhaps the last."""
        if self._has_stopped_accepting and not self.clients.connections:
            self._end()

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
