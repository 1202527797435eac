"""One data process as control sees it: its process, its channel, the answers it owes.

Owns the process from spawn to exit; must not decide when one is started, replaced or reloaded
(see `supervisor.py`).

1. A question is a message whose answer is a message of a known type with a known number
   (`_number`); `ask` waits for it.
2. Death ends every wait: the exit of the process, not the end of its channel, is what counts; a
   process whose channel ended is killed, for it cannot be told anything any more.
3. A process is spawned for no slot in particular, with every listening socket; `take_slot` tells
   it which. Before that it is a spare.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar, cast

from router.channel import Channel, Message
from router.errors import PointsmanError
from router.messages import (
    Committed,
    Drained,
    Ejection,
    FeedbackRequest,
    Hello,
    Prepared,
    Stats,
    TakeSlot,
)

_EXIT_GRACE_S: Final = 1.0
_LAST_WORDS_S: Final = 0.5
_ALLOCATION: Final = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "8388608"}
"""For glibc: the loop reads up to 250 KiB at once, which by default is mapped from the kernel and
given back each time. Kept in the heap instead, a download of 1 MiB takes 0.43 ms of CPU against
0.77 (three runs each, 8 connections), for less than 1 MiB of memory more. The environment of the
program goes before these."""

_OWN_ENVIRONMENT: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""What systemd tells control alone."""

log = logging.getLogger(__name__)


class Death(StrEnum):
    """Why a worker is no more; a label of `pointsman_worker_deaths_total`."""

    EXIT = "exit"
    """It ended itself."""
    SIGNAL = "signal"
    """A signal that was not ours: a crash, lack of memory, somebody's `kill`."""
    HUNG = "hung"
    """It said nothing for `hang_timeout`, and was killed."""
    LATE = "late"
    """It did not get ready, swap or leave in time, and was killed."""
    REFUSED = "refused"
    """It could not build the config in force, and was killed."""


class WorkerState(StrEnum):
    """`starting` until its first commit, `serving`, `draining`, `gone`."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    GONE = "gone"


class WorkerGone(PointsmanError):
    """The worker exited before it answered."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How workers are started: the command, to which file descriptors and log settings are
    appended as `--channel FD --listeners FD,FD --log-format F --log-level L`.

    `has_spare`: one more is kept started.
    """

    command: Sequence[str]
    log_format: str
    log_level: str
    has_spare: bool = False


@dataclass(frozen=True, slots=True)
class WorkerEvents:
    """Whom a worker's unasked messages go to."""

    on_stats: Callable[["Worker", Stats], None]
    on_feedback: Callable[["Worker", FeedbackRequest], None]
    on_ejection: Callable[["Worker", Ejection], None]


_Answer = TypeVar("_Answer", Hello, Prepared, Committed, Stats, Drained)


def _number(message: Message) -> int:
    """Which question a message answers: a generation, a ticket; 0 where there is one only."""
    if isinstance(message, Prepared | Committed):
        return message.generation
    return message.ticket if isinstance(message, Stats) else 0


class Worker:
    """A running data process. Create with `spawn`."""

    def __init__(self, process: asyncio.subprocess.Process, events: WorkerEvents) -> None:
        self.slot = -1
        """Which of the program's workers it is; -1: a spare."""
        self.pid = process.pid
        self.state = WorkerState.STARTING
        self.since_s = time.time()
        self.generation = 0
        """The generation it serves; 0 before its first commit."""
        self.prepared = 0
        """The generation it holds as a trial; 0 when none."""
        self.heard_s: float | None = None
        """When it last said something, on the monotonic clock; None: nothing yet."""
        self.is_leaving = False
        """Whether it was told to drain."""
        self._killed_for: Death | None = None
        self._killed_because: str | None = None
        self._serves_since_s: float | None = None
        self._process = process
        self._events = events
        self._channel: Channel | None = None
        self._channel_ended = asyncio.Event()
        self._waiting: dict[tuple[type[Any], int], asyncio.Future[Message]] = {}
        self._repeat: list[Message] | None = None
        self._has_config = False
        self._exit = asyncio.create_task(self._see_out(), name=f"exit-{self.pid}")

    @classmethod
    async def spawn(
        cls, launch: Launch, listeners: Sequence[socket.socket], events: WorkerEvents
    ) -> "Worker":
        """Start a process that can take any slot: `listeners` has the socket of each.

        It leads a session of its own, so that a terminal's Ctrl-C reaches control alone.

        Raises:
            OSError: the process cannot be started.
        """
        ours, theirs = socket.socketpair()
        descriptors = [listener.fileno() for listener in listeners]
        environment = {**_ALLOCATION, **os.environ}
        for name in _OWN_ENVIRONMENT:
            environment.pop(name, None)
        try:
            process = await asyncio.create_subprocess_exec(
                *launch.command,
                *("--channel", str(theirs.fileno())),
                *("--listeners", ",".join(map(str, descriptors))),
                *("--log-format", launch.log_format),
                *("--log-level", launch.log_level),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sys.stderr,
                env=environment,
                pass_fds=(theirs.fileno(), *descriptors),
                start_new_session=True,
            )
        except BaseException:  # cancelled: the process sees the end of its channel, and leaves
            ours.close()
            raise
        finally:
            theirs.close()
        worker = cls(process, events)
        worker._channel = await Channel.open(ours, worker._received, worker._channel_closed)
        return worker

    def take_slot(self, slot: int) -> None:
        """It is worker `slot` from now on; its `Hello` follows."""
        self.slot = slot
        hello = self._expect(Hello, 0)
        hello.add_done_callback(lambda future: future.cancelled() or future.exception())
        self.send(TakeSlot(slot))

    # asking and telling

    def send(self, message: Message) -> None:
        """Tell without waiting; nothing happens when the worker is gone."""
        if self._channel is not None:
            self._channel.send(message)

    async def ask(
        self, question: Message | None, kind: type[_Answer], number: int, timeout_s: float
    ) -> _Answer:
        """Send `question` (None: it was asked before) and wait for the answer.

        Raises:
            WorkerGone: it exited first.
            TimeoutError: no answer within `timeout_s`.
        """
        future = self._waiting.get((kind, number)) or self._expect(kind, number)
        if question is not None:
            self.send(question)
        try:
            async with asyncio.timeout(timeout_s):
                return cast(_Answer, await future)
        finally:
            self._waiting.pop((kind, number), None)

    def push(self, message: Message) -> None:
        """Tell of a change that a prepared trial does not know: repeated when that is committed.

        A worker that has no config yet will get it with its first.
        """
        if self._has_config:
            self.send(message)
        if self._repeat is not None:
            self._repeat.append(message)

    def begin_trial(self, generation: int) -> None:
        """From now on pushes are remembered until `end_trial`."""
        self.prepared = generation
        self._repeat = []

    def end_trial(self) -> None:
        """The trial was committed or discarded (and the worker told): repeat what it missed."""
        missed, self._repeat = self._repeat or [], None
        self._has_config = True
        self.prepared = 0
        for message in missed:
            self.send(message)

    # life and death

    @property
    def served_s(self) -> float:
        """Seconds since it first served; 0 when it never did."""
        return 0.0 if self._serves_since_s is None else time.monotonic() - self._serves_since_s

    def enter(self, state: WorkerState) -> None:
        """Change the state shown to operators."""
        self.state = state
        self.since_s = time.time()
        self.is_leaving |= state is WorkerState.DRAINING
        if state is WorkerState.SERVING and self._serves_since_s is None:
            self._serves_since_s = time.monotonic()

    def kill(self, death: Death | None = None, because: str | None = None) -> None:
        """SIGKILL, unless it is gone. Without a reason: because the program ends."""
        if self._process.returncode is None:
            self._killed_for = self._killed_for or death
            self._killed_because = self._killed_because or because
            self._process.kill()

    def death(self, status: int) -> Death:
        """The kind of its death, after `exited` returned `status`."""
        if self._killed_for is not None:
            return self._killed_for
        return Death.SIGNAL if status < 0 else Death.EXIT

    def epitaph(self, status: int) -> str:
        """Why it is gone, after `exited` returned `status`."""
        if self._killed_because is not None:
            return self._killed_because
        is_perhaps_memory = status == -signal.SIGKILL and self._killed_for is None
        return ending(status) + (", perhaps out of memory" if is_perhaps_memory else "")

    async def exited(self) -> int:
        """Wait for the end: the exit status, negative for a signal."""
        return await asyncio.shield(self._exit)

    async def _see_out(self) -> int:
        status = await self._process.wait()
        with contextlib.suppress(TimeoutError):  # its last words may still lie in the channel
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._channel_ended.wait()
        self.enter(WorkerState.GONE)
        self._fail_waiting()
        if self._channel is not None:
            self._channel.close()
        return status

    # what arrives

    def _expect(self, kind: type[Any], number: int) -> asyncio.Future[Message]:
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        if self.state is WorkerState.GONE:
            future.set_exception(self._gone())
        self._waiting[(kind, number)] = future
        return future

    def _received(self, message: Message) -> None:
        self.heard_s = time.monotonic()
        try:
            self._take(message)
        except Exception:  # a bug here must not end the channel, and with it the worker
            log.exception("message_failed")

    def _take(self, message: Message) -> None:
        if isinstance(message, FeedbackRequest):
            self._events.on_feedback(self, message)
        elif isinstance(message, Ejection):
            self._events.on_ejection(self, message)
        elif isinstance(message, Stats):
            self._events.on_stats(self, message)
        future = self._waiting.get((type(message), _number(message)))
        if future is not None and not future.done():
            future.set_result(message)

    def _channel_closed(self) -> None:
        self._channel_ended.set()
        if self.state is not WorkerState.GONE:
            asyncio.get_running_loop().call_later(_EXIT_GRACE_S, self.kill)

    def _fail_waiting(self) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(self._gone())

    def _gone(self) -> WorkerGone:
        return WorkerGone(f"worker {self.slot} (pid {self.pid}) exited")


def ending(status: int) -> str:
    """`exited with status 1`, `was killed by SIGSEGV`."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was killed by {name}"
