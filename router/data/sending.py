"""The first half of a connection to an endpoint: what is sent on it, and how long all may take.

Owns the way out of a request, from `begin` to its last byte, who waits for whom (back-pressure both
ways) and the endpoint's clock. What comes back, and how a request ends, is for `upstream.py`.

1. Bytes leave by way of the outbox, so what was written may not have left yet: `is_unsent` knows.
2. One deadline runs at a time, and only while it is the endpoint's turn: for the first byte once
   the request is out, for the next ones from then on, none while it is the client who is awaited.
"""

import asyncio
import select
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from router.data import kernel
from router.data.roles import Call
from router.data.tls import TlsTransport
from router.errors import (
    UPSTREAM_FIRST_BYTE_TIMEOUT,
    UPSTREAM_IDLE_TIMEOUT,
    UPSTREAM_RESET,
    Refusal,
)

if TYPE_CHECKING:
    from router.data.endpoint import EndpointPool

BUFFER_HIGH_BYTES: Final = 0
"""Bytes queued towards an endpoint past which the client's sending is paused; see `downstream`."""
_PROBE_AFTER_S: Final = 0.05
"""A connection idle for longer is probed for a close that the loop has not seen yet."""


class Reading:
    """What a connection expects next; plain ints, compared by identity on the hot path."""

    HEAD = 0
    LENGTH = 1
    CHUNKED = 2
    CLOSE = 3
    TUNNEL = 4


class Sending(asyncio.Protocol):
    """What an `Upstream` is to whoever sends a request on it. Implements `wheel.Timed`."""

    __slots__ = (
        "_begun_at", "_is_lost", "_paused", "_reading", "_was_unsent", "call", "deadline",
        "idle_since_s", "pool", "sent_s", "slot_s", "transport",
    )  # fmt: skip

    def __init__(self, pool: "EndpointPool") -> None:
        # per connection
        self.pool = pool
        self.transport = cast(asyncio.Transport, None)
        self.deadline = inf
        self.slot_s = inf
        self.idle_since_s = 0.0
        self._is_lost = False
        self._was_unsent = False
        # per request
        self.call: Call | None = None
        self.sent_s = 0.0
        self._begun_at = 0
        self._reading = Reading.HEAD
        self._paused = False

    def __repr__(self) -> str:
        return f"<Upstream {self.pool.url} [{'idle' if self.call is None else 'busy'}]>"

    def _fail(self, refusal: Refusal, detail: str) -> None:
        """Give up on the request, for this reason."""
        raise NotImplementedError

    # a call comes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(BUFFER_HIGH_BYTES)
        kernel.bound_unsent(self.transport)

    def is_usable(self, now_s: float) -> bool:
        """False when the endpoint closed this idle connection and the loop has not noticed yet."""
        if now_s - self.idle_since_s < _PROBE_AFTER_S:
            return True
        probe = select.poll()
        probe.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        if not probe.poll(0):
            return True
        return isinstance(self.transport, TlsTransport) and not self.transport.has_ended()

    def begin(self, call: Call) -> None:
        """Work for `call` until its response is complete or the connection is lost."""
        self.call = call
        self._begun_at = self.pool.outbox.flushes
        self._reading = Reading.HEAD
        if self._is_lost:  # between its opening and now: nobody else will tell
            self._was_unsent = True
            asyncio.get_running_loop().call_soon(self._lose)

    def _lose(self) -> None:
        if self.call is not None:
            self._fail(UPSTREAM_RESET, "the connection closed before the request was sent")

    def hand_over(self, call: Call) -> None:
        """Work for another call from now on."""
        self.call = call

    # sending

    def write(self, data: bytes) -> None:
        """Send `data` to the endpoint."""
        self.pool.outbox.write(self.transport, data)

    def write_eof(self) -> None:
        """Close our side, after what was written has left."""
        self.pool.outbox.flush()
        if not self.transport.is_closing():
            self.transport.write_eof()

    @property
    def is_unsent(self) -> bool:
        """Whether nothing of the request has left. True to the end when that can not any more."""
        return self._begun_at == self.pool.outbox.flushes or self._was_unsent

    def pause_writing(self) -> None:
        if self.call is not None:
            self.call.on_upstream_paused()

    def resume_writing(self) -> None:
        if self.call is not None:
            self.call.on_upstream_resumed()

    # the endpoint's clock

    def expect_response(self) -> None:
        """The request's last byte was written: from now on the first-byte timeout counts."""
        self.sent_s = now = monotonic()
        deadline = now + self.pool.timeout.first_byte
        self.deadline = deadline
        if deadline < self.slot_s:
            self.pool.wheel.arm(self, deadline)

    def expect_progress(self) -> None:
        """Bytes moved: the idle timeout counts from now, unless it is we who do not read."""
        if self._paused:
            return
        timeout = self.pool.timeout
        is_tunnel = self._reading == Reading.TUNNEL
        deadline = monotonic() + (timeout.tunnel if is_tunnel else timeout.idle)
        self.deadline = deadline
        if deadline < self.slot_s:
            self.pool.wheel.arm(self, deadline)

    def expect_nothing(self) -> None:
        """It is not the endpoint's turn: no timeout counts."""
        self.deadline = inf

    def pause_reading(self) -> None:
        """The client takes no more: stop reading, and stop the clock on the endpoint."""
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.deadline = inf
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """The client takes bytes again."""
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()
            self.expect_progress()

    def on_deadline(self) -> None:
        if self.call is None:
            self.transport.abort()
        elif self._reading == Reading.HEAD and self.call.is_request_complete:
            self.time_out(self.pool.timeout.first_byte)
        else:
            self._fail(UPSTREAM_IDLE_TIMEOUT, f"nothing moved for {self.pool.timeout.idle:g} s")

    def time_out(self, after_s: float) -> None:
        """No first byte came for so long: give up."""
        self.pool.on_late(after_s)
        self._fail(UPSTREAM_FIRST_BYTE_TIMEOUT, f"no answer within {after_s:g} s")
