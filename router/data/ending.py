"""How a client's connection ends: too late, in doubt, in order or broken off.

The base of `downstream.py`. Owns the client's clock and everything that closes; must not look into
bytes. Strategy:

1. Once `_is_closing`, what comes is nobody's, and nothing is begun any more.
2. After any doubt about where a message ends the connection is closed, but only after the client
   had a chance to read our answer (`_linger`).
3. A response cut short never looks whole: then the client sees a reset.
4. A deadline is the client's own: it stands while somebody else is waited for, and whoever reads
   on, however slowly, is given more time.
"""

import asyncio
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from router.data import kernel
from router.data.exchange import Exchange
from router.data.roles import Handler
from router.errors import (
    INTERNAL,
    SLOW_CLIENT,
    TOO_MANY_CONNECTIONS,
    TOO_MANY_REQUESTS,
    HeadError,
)
from router.http1.problem import write_problem
from router.http1.request_body import RequestBody

if TYPE_CHECKING:
    from router.data.worker import Worker

LINGER_S: Final = 2.0
"""How long a client may take to read our last answer before the connection is closed."""


class Ending(asyncio.Protocol):
    """What a `Downstream` is to whoever ends it. Implements `wheel.Timed`."""

    __slots__ = (
        "_body", "_buffer", "_head_began", "_is_closing", "_is_paused", "_is_surplus", "_served",
        "_unread_bytes", "deadline", "handler", "is_write_paused", "slot_s", "transport", "worker",
    )  # fmt: skip

    def __init__(self, worker: "Worker") -> None:
        # per connection
        self.worker = worker
        self.transport = cast(asyncio.Transport, None)
        self.deadline = inf
        self.slot_s = inf
        self._buffer = b""
        self._served = 0
        self._is_surplus = False
        self._is_paused = False
        self.is_write_paused = False
        """The client does not take what was written."""
        self._is_closing = False
        self._unread_bytes = 0
        # per request
        self.handler: Handler | None = None
        self._head_began = False
        self._body: RequestBody | None = None
        """What is still to come of the request's body; None when all has come."""

    # writing

    def write(self, data: bytes) -> None:
        """Send `data` to the client."""
        self.worker.outbox.write(self.transport, data)

    def write_eof(self) -> None:
        """Close our side, after what was written has left."""
        self.worker.outbox.flush()
        if not self.transport.is_closing():
            self.transport.write_eof()

    # too late

    def _wait(self, seconds: float) -> None:
        """The client has so long, from now."""
        deadline = monotonic() + seconds
        self.deadline = deadline
        if deadline < self.slot_s:
            self.worker.wheel.arm(self, deadline)

    def on_deadline(self) -> None:
        handler = self.handler
        is_body_awaited = self._body is not None and not self._is_paused
        if not is_body_awaited and self._has_read_on():
            self._wait(self.worker.limits.body_timeout)
        elif self._is_closing or (handler is None and not self._head_began):
            self.transport.abort()
        elif handler is None:
            error = HeadError(SLOW_CLIENT, "the head did not end in time")
            self._refuse(error, is_head=self._buffer.startswith(b"HEAD "))
        elif not is_body_awaited:  # the client does not read
            self.reset()
            self.handler = None
            handler.on_client_gone()
        else:
            self._refuse(HeadError(SLOW_CLIENT, "the body stopped coming"))

    def _has_read_on(self) -> bool:
        """True when the client has something to read, and took some of it since the last look."""
        before, self._unread_bytes = self._unread_bytes, kernel.unread_bytes(self.transport)
        return 0 < self._unread_bytes != before

    # in doubt

    def _refuse(self, error: HeadError, is_head: bool = False) -> None:
        """What came cannot be understood or is too much: answer, then close."""
        handler = self.handler
        if isinstance(handler, Exchange):
            handler.refuse_or_cut(error.refusal, error.detail)
            return
        if handler is None:
            self.worker.count_unparsed(error.refusal)
        else:
            self.handler = None
            is_head = handler.is_head
            handler.on_client_gone()
            self.worker.stats.count_refusal(error.refusal)
        date = self.worker.date_line
        answer = write_problem(
            error.refusal, error.detail, b"", date=date, is_head=is_head, close=True
        )
        self.write(answer)
        self._linger()

    def _shed(self, is_head: bool) -> None:
        """Too many requests or connections: the newest is refused, before it costs anything."""
        if self._is_surplus:
            error = HeadError(TOO_MANY_CONNECTIONS, "too many connections are open")
        else:
            error = HeadError(TOO_MANY_REQUESTS, "too many requests are in progress")
        self._refuse(error, is_head)

    def _linger(self) -> None:
        """Close without losing our answer: a close with unread bytes would reset the connection.

        RFC 9112 section 9.6: close the writing side, read on until the client closes or gives time.
        """
        self._is_closing = True
        self._buffer = b""
        if self.transport.is_closing():
            return
        if self._is_paused:
            self._is_paused = False
            self.transport.resume_reading()
        self.worker.outbox.flush()
        self.transport.write_eof()
        self._wait(LINGER_S)

    # in order

    def _close(self) -> None:
        """Nothing is in doubt: close when what was written has left."""
        self._is_closing = True
        self.worker.outbox.flush()
        self.transport.close()

    def close_if_idle(self, served_s: float, fresh_s: float) -> None:
        """Draining: a connection between requests, for at least `served_s`, is closed; one that has
        not sent its first, after `fresh_s`."""
        if self.handler is not None or self._is_closing or self._head_began:
            return
        limits = self.worker.limits
        if self._served:
            is_idle = monotonic() - (self.deadline - limits.idle_timeout) >= served_s
        else:
            is_idle = monotonic() - (self.deadline - limits.head_timeout) >= fresh_s
        if is_idle and not kernel.has_waiting(self.transport.get_extra_info("socket")):
            self._close()

    # broken off

    def reset(self) -> None:
        """End the connection so that the client cannot mistake what it has for a whole response."""
        self._is_closing = True
        kernel.reset(self.transport)

    def _give_up(self, error: Exception) -> None:
        """A bug of ours, before anything was asked: nobody would ever answer here."""
        self._is_closing = True
        self.worker.outbox.report_bug(error)
        self.worker.stats.count_refusal(INTERNAL)
        self.transport.abort()
