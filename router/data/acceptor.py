"""The listening socket in a worker: accepting, pausing for lack of open files, stopping.

Control keeps the socket too, so closing it here loses nothing while the program runs. Strategy:

1. The loop accepts from a duplicate. A pause closes that and no more: who connects waits in the
   kernel's queue. (Without files libuv would accept and close them, see `uv__emfile_trick`.)
2. Files are numbered from the lowest free one, so a new connection's number tells how many are
   open. A pause begins while some are left: connections to endpoints need them.
3. Stopping for good empties the queue first, unless another process accepts from it.
"""

import asyncio
import logging
import resource
import socket
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final

from router import logs
from router.config.model import Config
from router.data import kernel
from router.data.downstream import Downstream

if TYPE_CHECKING:
    from router.data.worker import Worker

_BACKLOG: Final = 4096
"""Connections the kernel queues; it takes the smaller of this and `net.core.somaxconn`."""
_RESERVE_MIN: Final = 16
_LOOK_S: Final = 0.1
"""Paused: how often it is looked whether files were closed."""
_SLACK: Final = 4
"""So many files must be free before accepting goes on, lest it flaps."""
_LOG_EVERY_S: Final = 10.0
TAIL_S: Final = 0.2
"""Stopping: how long a handshake that has begun may take to end. A round trip round the world."""
_EMPTYING_S: Final = 0.05

_log = logging.getLogger("router.data")


class Acceptor:
    """Takes connections from one listening socket."""

    def __init__(self, worker: "Worker", listener: socket.socket) -> None:
        self.is_paused = False
        self.listener = listener
        self._worker = worker
        self._loop = worker.loop
        self._server: asyncio.Server | None = None
        self._last_file = 0
        """A new connection with this number, or a higher one, begins a pause."""
        self._resuming: asyncio.TimerHandle | None = None
        self._stopping: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._paused_at_s = 0.0
        self._logged_at_s = -_LOG_EVERY_S
        self._is_logged = False

    async def start(self) -> None:
        """Accept connections, from now on or again."""
        server = await self._loop.create_server(
            lambda: self._worker.handshakes.protocol(Downstream(self._worker)),
            sock=self.listener.dup(),
            backlog=_BACKLOG,
        )
        if self._is_closed:
            server.close()
        else:
            self._server = server

    # open files

    def take_settings(self, config: Config) -> None:
        """Leave files for the endpoints of `config`."""
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        connections = config.downstream.connections
        self._last_file = most - _reserve(config, most)
        if connections > self._last_file and self._worker.number == 0:
            logs.event(
                _log,
                "connections_bounded",
                severity=logging.WARNING,
                configured=connections,
                open_files_allowed=most,
                accept_pauses_at=self._last_file,
            )

    def look(self, transport: asyncio.Transport) -> None:
        """A connection was accepted: pause when it took one of the last files."""
        if transport.get_extra_info("socket").fileno() >= self._last_file and not self.is_paused:
            self._pause()

    def _pause(self) -> None:
        self.is_paused = True
        self._worker.stats.counters[("pointsman_accept_paused_total",)] += 1
        self._paused_at_s = now_s = monotonic()
        self._is_logged = now_s - self._logged_at_s >= _LOG_EVERY_S
        if self._is_logged:
            self._logged_at_s = now_s
            logs.event(
                _log,
                "accept_paused",
                severity=logging.ERROR,
                open_files_max=self._last_file,
                connections=len(self._worker.clients.connections),
            )
        # not within libuv's callback, which still holds the connection that came
        self._loop.call_soon(self._close_server)
        self._resuming = self._loop.call_later(_LOOK_S, self._try_resume)

    def _try_resume(self) -> None:
        try:
            lowest_free = self.listener.dup()
        except OSError:
            is_free = False
        else:
            is_free = lowest_free.fileno() < self._last_file - _SLACK
            lowest_free.close()
        if not is_free:
            self._resuming = self._loop.call_later(_LOOK_S, self._try_resume)
            return
        self.is_paused = False
        if self._is_logged:
            paused_s = round(monotonic() - self._paused_at_s, 3)
            logs.event(_log, "accept_resumed", severity=logging.WARNING, paused_s=paused_s)
        self._loop.create_task(self.start()).add_done_callback(self._on_resumed)

    def _on_resumed(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:  # files ran out again
            self.is_paused = True
            self._resuming = self._loop.call_later(_LOOK_S, self._try_resume)

    # the end

    def stop(self, has_successor: bool, on_stopped: Callable[[], None]) -> None:
        """Accept no more; `on_stopped` is called when no connection will come any more.

        With a successor that is at once: it accepts from the same queue. Without one nobody does,
        so it is emptied.
        """
        has_started = self._server is not None or self.is_paused
        if has_successor or not has_started:
            self._finish(on_stopped)
        elif self._stopping is None:
            kernel.refuse_newcomers(self.listener)
            self._stopping = self._loop.call_later(TAIL_S, self._empty, on_stopped)

    def close(self) -> None:
        """Give the socket up, with what waits in its queue."""
        self._is_closed = True
        self._close_server()
        for timer in (self._resuming, self._stopping):
            if timer is not None:
                timer.cancel()
        self.listener.close()

    def _empty(self, on_stopped: Callable[[], None]) -> None:
        if kernel.has_waiting(self.listener):
            self._stopping = self._loop.call_later(_EMPTYING_S, self._empty, on_stopped)
        else:
            self._finish(on_stopped)

    def _finish(self, on_stopped: Callable[[], None]) -> None:
        self.close()
        # who was accepted in this turn of the loop is made known in the next, before this
        self._loop.call_soon(on_stopped)

    def _close_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


def _reserve(config: Config, most: int) -> int:
    """Files kept for connections to endpoints: as many as can be busy at once.

    At most half: a client has one request in progress, which takes one connection.
    """
    wanted = sum(
        backend.limits.connections * len(backend.endpoints) for backend in config.backends.values()
    )
    return max(_RESERVE_MIN, min(wanted, config.downstream.in_flight, most // 2))
