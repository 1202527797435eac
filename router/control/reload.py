"""Reload: a transaction from the file on disk to every worker.

Owns the order of its steps and the record of how it went; one at a time. Strategy:

1. Read, validate and build as a trial here. Nothing has changed yet.
2. Refuse by name what cannot change while the program runs.
3. Build learners and rollouts, then have every worker build the trial. One objection: all
   forget it.
4. Swap: one assignment here, one in each worker. From here on it cannot fail.

A refused file changes nothing but a log line, a metric and `/status`.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from router import logs, table
from router.config import ConfigError, Loaded, load_file
from router.config.model import CANNOT_CHANGE, Config
from router.control.plane import Phase, Plane, ReloadRecord, Snapshot
from router.errors import StartError
from router.messages import Prepare
from router.tls.files import look

FIRST_GENERATION: Final = 1
_LOGGED_ERRORS_MAX: Final = 20

log = logging.getLogger(__name__)


class Refused(Exception):
    """The new config is not taken; `errors` say why."""

    def __init__(self, *errors: str) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


class Reloader:
    """Takes new versions of one file."""

    def __init__(self, plane: Plane, path: Path, env: Mapping[str, str]) -> None:
        self._plane = plane
        self._path = path
        self._env = env
        self._lock = asyncio.Lock()
        # a number is never used twice, so that a late answer to a refused trial is told apart
        self._generations = itertools.count(FIRST_GENERATION + 1)

    async def reload(self, trigger: str, by: str = "") -> ReloadRecord:
        """Put the file in force, or leave everything as it is. Never raises on a bad file.

        `trigger` says what asked: `file`, `signal` or `api`; `by` who did, where that is known.
        """
        async with self._lock:
            began_s = time.monotonic()
            errors: tuple[str, ...] = ()
            try:
                result = "success" if await self._attempt() else "unchanged"
            except Refused as refusal:
                result, errors = "refused", refusal.errors
            except Exception as error:  # a bug here must not end watching or serving
                log.exception("reload_failed")
                result, errors = "refused", (f"internal error: {error}",)
            record = ReloadRecord(result, time.time(), trigger, errors)
            self._record(record, time.monotonic() - began_s)
            if record.result == "success":
                digest = self._plane.snapshot.loaded.digest[:12]
                await self._plane.audit.note("reload", by or trigger, f"config {digest} in force")
            return record

    async def alone(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` while no reload is in progress."""
        async with self._lock:
            await work()

    async def settle(self) -> None:
        """Return when no reload is in progress."""
        async with self._lock:
            pass

    async def _attempt(self) -> bool:
        """Whether something changed.

        Raises:
            Refused: nothing did.
        """
        plane = self._plane
        if plane.phase is Phase.DRAINING:
            raise Refused("the program is stopping")
        try:
            loaded = await asyncio.to_thread(_read, self._path, self._env)
        except ConfigError as error:
            raise Refused(*(str(problem) for problem in error.problems)) from error
        if loaded.digest == plane.snapshot.loaded.digest:
            return plane.certificates.take(loaded.pem)
        _refuse_fixed(plane.snapshot.loaded.config, loaded.config)
        await self._put_in_force(loaded)
        return True

    async def _put_in_force(self, loaded: Loaded) -> None:
        plane, config = self._plane, loaded.config
        try:
            learners = await plane.learning.build(config)
            rollouts = await plane.rollouts.build(config)
        except StartError as error:
            raise Refused(str(error)) from error
        generation = next(self._generations)
        plane.certificates.offer(loaded)
        try:
            await plane.endpoints.meet(config)
            objections = await plane.supervisor.prepare(
                Prepare(
                    generation=generation,
                    document=loaded.document,
                    weights=learners.weights() | rollouts.weights(),
                    endpoints=plane.endpoints.states(config),
                    receipt_key=learners.receipt_key,
                    pem=dict(loaded.pem),
                    held=rollouts.held(),
                    workers=plane.supervisor.size,
                    cells=learners.cells(),
                    versions=dict(learners.versions),
                )
            )
            if objections:
                plane.supervisor.discard(generation)
                raise Refused(*objections)
            plane.webhooks.adopt(config.notify)
            # writes what begins, before anybody acts on it
            await plane.rollouts.adopt(rollouts, generation)
            plane.snapshot = Snapshot(loaded, generation, time.time())
            plane.certificates.adopt(loaded)
            plane.learning.adopt(learners)
        finally:
            plane.certificates.offer(plane.snapshot.loaded)
            plane.endpoints.adopt(plane.snapshot.loaded.config)
        logs.configure(config.logging.format, config.logging.level)
        await plane.supervisor.commit(generation)

    def _record(self, record: ReloadRecord, took_s: float) -> None:
        plane, earlier = self._plane, self._plane.last_reload
        plane.last_reload = record
        plane.reloads[record.result] += 1
        if record.is_success:
            plane.last_success_at_s = record.at_s
        if record.result == "refused":
            logs.event(
                log,
                "reload_refused",
                severity=logging.ERROR,
                trigger=record.trigger,
                problems=len(record.errors),
                errors=list(record.errors[:_LOGGED_ERRORS_MAX]),
                generation=plane.snapshot.generation,
            )
        elif record.result == "success" or (earlier is not None and not earlier.is_success):
            logs.event(
                log,
                "reloaded",
                trigger=record.trigger,
                generation=plane.snapshot.generation,
                digest=plane.snapshot.loaded.digest[:12],
                took_ms=round(took_s * 1000),
            )


def _read(path: Path, env: Mapping[str, str]) -> Loaded:
    loaded = load_file(path, env, look)
    table.build(loaded.config, 0)  # the trial; workers build their own
    return loaded


def _refuse_fixed(old: Config, new: Config) -> None:
    changed = [key for key in CANNOT_CHANGE if getattr(old, key) != getattr(new, key)]
    if changed:
        raise Refused(*(f"{key} cannot change at run time, it needs a restart" for key in changed))
