"""Readiness of sockets with time-outs of microseconds.

`epoll` rounds its time-out up to milliseconds. `select` does not, but takes time for each socket.
So `select` waits for the epoll descriptor alone, and epoll then says which sockets are ready.
Timer slack is for the process to set (`exact_timers`).
"""

import gc
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path


class Poller:
    """Calls a socket's handler when the socket is ready. Times are of `time.monotonic_ns`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}

    def add(self, sock: socket.socket, on_ready: Callable[[], None]) -> None:
        """Call `on_ready` whenever there is something to read, or the peer has gone."""
        self._handlers[sock.fileno()] = on_ready
        self._epoll.register(sock, select.EPOLLIN)

    def want_write(self, sock: socket.socket, is_wanted: bool) -> None:
        """Call the handler when the socket takes bytes, too; or no longer."""
        self._epoll.modify(sock, select.EPOLLIN | (select.EPOLLOUT if is_wanted else 0))

    def remove(self, sock: socket.socket) -> None:
        del self._handlers[sock.fileno()]
        self._epoll.unregister(sock)

    def poll(self, until_ns: int) -> None:
        """Wait until a socket is ready, but not beyond `until_ns`, and call the handlers."""
        wait_s = max(0, until_ns - time.monotonic_ns()) / 1e9
        if select.select((self._epoll,), (), (), wait_s)[0]:
            for descriptor, _ in self._epoll.poll(0):
                # a handler before it may have removed this one
                if handler := self._handlers.get(descriptor):
                    handler()

    def close(self) -> None:
        self._epoll.close()


def exact_timers() -> None:
    """Let this process wake when it asked to, and never pause it to collect garbage."""
    Path("/proc/self/timerslack_ns").write_text("1")
    gc.freeze()
    gc.disable()
