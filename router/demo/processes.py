"""The demo's child processes: started, awaited, guarded and always stopped.

1. A child says that it is ready with a JSON line that has `"event": "ready"`, on either output.
2. It runs in a session of its own, so that Ctrl-C reaches only the demo, which then stops its
   children in order.
3. Every wait is bounded. What does not stop is killed with all it started.
"""

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

import orjson

from router.errors import PointsmanError

_LINES_KEPT: Final = 8
_LINE_MAX_BYTES: Final = 1024 * 1024
_STOP_PATIENCE_S: Final = 8.0
_BLAME_PATIENCE_S: Final = 0.5

_Result = TypeVar("_Result")


class DemoError(PointsmanError):
    """The demo cannot go on; the message is for the person who started it."""


class Child:
    """A child process. Create with `Child.start`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process
        self._last_lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls, name: str, command: Sequence[str], environment: Mapping[str, str]
    ) -> "Child":
        """Start `command`; `environment` is added to our own."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **environment},
            limit=_LINE_MAX_BYTES,
            start_new_session=True,
        )
        return cls(name, process)

    async def ready(self, patience_s: float) -> dict[str, Any]:
        """The ready line, once it has come.

        Raises:
            DemoError: the child ended first, or `patience_s` passed.
        """
        either: set[asyncio.Future[Any]] = {self._ready, self._reader}
        await asyncio.wait(either, timeout=patience_s, return_when="FIRST_COMPLETED")
        if self._ready.done():
            return self._ready.result()
        if self._reader.done():
            await self.guard()
        raise self._error(f"was not ready within {patience_s:.0f} s")

    async def guard(self) -> None:
        """Never returns.

        Raises:
            DemoError: the child ended.
        """
        status = await self._process.wait()
        await asyncio.wait({self._reader}, timeout=1.0)
        raise self._error(f"ended by itself with status {status}")

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL to its whole group when that is not enough (or not clean).

        Raises:
            DemoError: it ran until now, and did not stop with status 0. One that is not ready yet
                may die of the signal.
        """
        was_running = self._process.returncode is None
        try:
            if was_running:
                with contextlib.suppress(ProcessLookupError):
                    self._process.terminate()
                async with asyncio.timeout(_STOP_PATIENCE_S):
                    await self._process.wait()
        except TimeoutError:
            raise self._error(f"did not stop within {_STOP_PATIENCE_S:.0f} s") from None
        finally:
            if self._process.returncode != 0:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                await self._process.wait()
            self._reader.cancel()
        clean = {0} if self._ready.done() else {0, -signal.SIGTERM}
        if was_running and self._process.returncode not in clean:
            raise self._error(f"stopped with status {self._process.returncode}")

    async def _read(self) -> None:
        """Take every line, so that the child never waits for us; keep the last few."""
        output = self._process.stdout
        if output is None:
            raise DemoError(f"{self.name} has no output")
        while line := await output.readline():
            self._last_lines.append(line.decode(errors="replace").rstrip())
            if not self._ready.done() and (ready := _ready_line(line)) is not None:
                self._ready.set_result(ready)

    def _error(self, what: str) -> DemoError:
        lines = "".join(f"\n    {line}" for line in self._last_lines)
        return DemoError(f"{self.name} {what}" + (f"; its last lines:{lines}" if lines else ""))


def _ready_line(line: bytes) -> dict[str, Any] | None:
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if isinstance(document, dict) and document.get("event") == "ready":
        return document
    return None


async def run_beside(
    main: Coroutine[Any, Any, _Result], *helpers: Coroutine[Any, Any, None]
) -> _Result:
    """Run `main` to its end, and `helpers` as long. One that raises ends all with its exception."""
    main_task = asyncio.create_task(main)
    pending: set[asyncio.Task[Any]] = {main_task, *map(asyncio.create_task, helpers)}
    try:
        while not main_task.done():
            done, pending = await asyncio.wait(pending, return_when="FIRST_COMPLETED")
            for task in done - {main_task}:
                task.result()
        return main_task.result()
    finally:
        pending.add(main_task)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def run_guarded(main: Coroutine[Any, Any, _Result], children: Sequence[Child]) -> _Result:
    """Run `main` to its end; a child that ends first ends it.

    Raises:
        DemoError: a child ended, or `main` raised one. What a dead child causes is often seen
            before its death is, so a death found a moment after an error is raised in its place.
    """
    try:
        return await run_beside(main, *(child.guard() for child in children))
    except DemoError:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_BLAME_PATIENCE_S):
                await run_beside(_forever(), *(child.guard() for child in children))
        raise


async def _forever() -> None:
    await asyncio.Event().wait()
