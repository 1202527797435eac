"""One client connection: finds heads and bodies in its bytes, one exchange at a time, in order.

Owns the reading side's framing and the connection's end. After any doubt about where a message ends
the connection is closed, but only after the client had a chance to read our answer (`_linger`).
"""

import asyncio
import re
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from router.data import kernel
from router.data.exchange import Exchange
from router.data.pages import OwnPage
from router.data.roles import Handler
from router.data.tls import IDENTITY
from router.data.tunnel import Tunnel
from router.errors import (
    HEAD_TOO_LARGE,
    INTERNAL,
    MALFORMED,
    SLOW_CLIENT,
    TOO_MANY_CONNECTIONS,
    TOO_MANY_REQUESTS,
    HeadError,
)
from router.http1.fields import BARE_NEWLINE
from router.http1.forwarded import ClientAddress
from router.http1.problem import write_problem
from router.http1.request import RequestHead
from router.http1.request_body import RequestBody

if TYPE_CHECKING:
    from router.data.worker import Worker

BUFFER_HIGH_BYTES: Final = 0
"""Bytes queued towards a client past which the endpoint's sending is paused. The loop reads up to
250 KiB at once: with nothing more on top, that is what one direction of an exchange costs."""
PIPELINE_MAX_BYTES: Final = 4 * 1024
"""Bytes of further requests kept while one is in progress; past that we stop reading."""
LINGER_S: Final = 2.0
"""How long a client may take to read our last answer before the connection is closed."""
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)+")


class Downstream(asyncio.Protocol):
    """One client connection. Also a `wheel.Timed`: the deadline is the client's own."""

    __slots__ = (
        "_body", "_buffer", "_head_began", "_is_closing", "_is_paused", "_is_surplus",
        "_served", "_tunnel", "_unread_bytes", "deadline", "handler", "is_write_paused", "peer",
        "slot_s", "transport", "worker",
    )  # fmt: skip

    def __init__(self, worker: "Worker") -> None:
        # per connection
        self.worker = worker
        self.transport = cast(asyncio.Transport, None)
        self.peer = cast(ClientAddress, None)
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
        self._tunnel: Tunnel | None = None
        # per request
        self.handler: Handler | None = None
        self._head_began = False
        self._body: RequestBody | None = None
        """What is still to come of the request's body; None when all has come."""

    def __repr__(self) -> str:
        return f"<Downstream {self.peer.client} [{self.handler or 'idle'}]>"

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(BUFFER_HIGH_BYTES)
        kernel.bound_unsent(self.transport)
        name = transport.get_extra_info("peername")
        self.peer = self.worker.clients.peer_of(
            name[0] if name else "", transport.get_extra_info(IDENTITY)
        )
        self._is_surplus = self.worker.clients.enter(self, self.worker.limits)
        self.worker.acceptor.look(self.transport)
        self._wait(self.worker.limits.head_timeout)

    def data_received(self, data: bytes) -> None:
        if self._is_closing:
            return  # lingering: what comes now is nobody's
        try:
            if self._body is not None:
                self._read_body(self._body, data)
            elif self._tunnel is not None:
                self._tunnel.on_request_body(data, False)
            elif self.handler is None and not self.is_write_paused:
                self._read_head(data)
            else:
                self._buffer += data
                if len(self._buffer) > PIPELINE_MAX_BYTES:
                    self.pause_reading()
        except Exception as error:
            # a bug of ours ends this request, and is told; nobody else notices
            self.worker.outbox.report_bug(error)
            self._refuse(HeadError(INTERNAL, "the router failed on this request"))

    def eof_received(self) -> bool:
        """A client that closes its side gets nothing more: its endpoint's work is cancelled.

        In a tunnel it only says that it has no more to send.
        """
        if self._tunnel is None or self._is_closing:
            self.worker.outbox.flush()
            return False
        self._tunnel.on_client_ended()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.worker.wheel.drop(self)
        self._is_closing = True
        handler, self.handler = self.handler, None
        if handler is not None:
            handler.on_client_gone()
        self._tunnel = None  # they know each other: nothing is left for the collector
        self.worker.clients.leave(self)
        self.worker.departure.on_connection_lost()

    def pause_writing(self) -> None:
        self.is_write_paused = True
        self._unread_bytes = kernel.unread_bytes(self.transport)
        self._wait(self.worker.limits.body_timeout)
        if self.handler is not None:
            self.handler.on_client_paused()

    def resume_writing(self) -> None:
        self.is_write_paused = False
        if self.handler is None:
            self._next_request()
            return
        if self._body is None or self._is_paused:
            self.deadline = inf
        self.handler.on_client_resumed()

    # Timed

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

    # reading

    def pause_reading(self) -> None:
        """Take no more from the client; its clock stops, since it is not the one who waits."""
        if not (self._is_paused or self._is_closing or self.transport.is_closing()):
            self._is_paused = True
            self.transport.pause_reading()
            if self._body is not None:
                self._body.pause(monotonic())
                if not self.is_write_paused:
                    self.deadline = inf

    def resume_reading(self) -> None:
        """Take bytes again."""
        if self._is_paused and not (self._is_closing or self.transport.is_closing()):
            self._is_paused = False
            self.transport.resume_reading()
            if self._body is not None:
                self._body.resume(monotonic())
                self._wait(self.worker.limits.body_timeout)

    def _read_head(self, data: bytes) -> None:
        seen = 0
        if self._buffer:
            # what was kept while another request was in progress has not been looked at
            seen = len(self._buffer) if self._head_began else 0
            data = self._buffer + data
        if seen <= 1 and data.startswith(b"\r\n"):
            # RFC 9112 section 2.2: empty lines before a request are ignored
            data = data[_EMPTY_LINES.match(data).end() :]  # type: ignore[union-attr]  # it matches
            seen = 0
        end = data.find(b"\r\n\r\n", max(0, seen - 3))
        limit = self.worker.limits.head_bytes
        try:
            if end < 0 or end > limit:
                self._await_head(data, seen, limit)
                return
            head = self.worker.parser.parse(data[:end], self.peer)
        except HeadError as error:
            self._refuse(error, is_head=data.startswith(b"HEAD "))
            return
        self._buffer = b""
        self._head_began = False
        self.deadline = inf
        self._begin(head, data[end + 4 :])

    def _await_head(self, data: bytes, seen: int, limit: int) -> None:
        """Keep an incomplete head, of which the first `seen` bytes were looked at before."""
        self.worker.parser.check_beginning(data)
        if len(data) > limit:
            raise HeadError(HEAD_TOO_LARGE, f"the head is longer than {limit} bytes")
        if BARE_NEWLINE.search(data, max(0, seen - 1)):
            raise HeadError(MALFORMED, "a line of the head ends without CR")
        if data and not self._head_began:
            self._head_began = True
            self._wait(self.worker.limits.head_timeout)
        self._buffer = data

    def _begin(self, head: RequestHead, rest: bytes) -> None:
        """A whole head came; `rest` follows it."""
        worker = self.worker
        limits = worker.limits
        body_bytes = head.body_bytes
        self._served += 1
        if self._served >= limits.requests:
            head.keep_alive = False
        handler: Handler
        if head.path.startswith(b"/-/") or head.is_last_hop:
            handler = OwnPage(self, head)
        elif self._is_surplus or worker.in_flight >= limits.in_flight:
            self._shed(is_head=head.method == b"HEAD")
            return
        else:
            handler = Exchange(self, head)
        self.handler = handler
        worker.in_flight += 1
        if 0 <= body_bytes <= len(rest) and body_bytes <= limits.body_bytes:
            self._buffer = rest[body_bytes:]
            handler.start(rest[:body_bytes], True)
            return
        try:
            self._body = body = RequestBody(body_bytes, worker.body_bounds, monotonic())
        except HeadError as error:
            self._refuse(error)
        else:
            self._read_body(body, rest, handler.start)

    def _read_body(
        self, body: RequestBody, data: bytes, deliver: Callable[[bytes, bool], None] | None = None
    ) -> None:
        """Deliver payload, by default as more of the body."""
        now = monotonic()
        try:
            payload = body.feed(data, now)
        except HeadError as error:
            self._refuse(error)
            return
        done = body.done
        if done:
            self._body = None
            self._buffer = body.rest
            if not self.is_write_paused:
                self.deadline = inf
        else:
            self._wait(self.worker.limits.body_timeout)
        if deliver is not None:
            deliver(payload, done)
        elif self.handler is not None:
            self.handler.on_request_body(payload, done)

    def begin_tunnel(self, tunnel: Tunnel) -> None:
        """From now on bytes are the tunnel's, those that came ahead of the switch included."""
        self._tunnel = tunnel
        self.handler = tunnel
        data, self._buffer = self._buffer, b""
        self.resume_reading()  # first: the tunnel may stop us again
        tunnel.start(data, False)
        if self.is_write_paused:
            tunnel.on_client_paused()

    # writing and ending

    def write_eof(self) -> None:
        """Close our side, after what was written has left."""
        self.worker.outbox.flush()
        if not self.transport.is_closing():
            self.transport.write_eof()

    def write(self, data: bytes) -> None:
        """Send `data` to the client."""
        self.worker.outbox.write(self.transport, data)

    def _shed(self, is_head: bool) -> None:
        """Too many requests or connections: the newest is refused, before it costs anything."""
        if self._is_surplus:
            error = HeadError(TOO_MANY_CONNECTIONS, "too many connections are open")
        else:
            error = HeadError(TOO_MANY_REQUESTS, "too many requests are in progress")
        self._refuse(error, is_head)

    def _refuse(self, error: HeadError, is_head: bool = False) -> None:
        """The bytes cannot be understood or are too many: answer, then close."""
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

    def on_exchange_end(self, keep_alive: bool, is_request_complete: bool) -> None:
        """The handler is done; its response was written. Go on with the next request, or close."""
        self.handler = None
        self._body = None
        worker = self.worker
        worker.in_flight -= 1
        if self._is_closing:
            return
        if not keep_alive:
            if is_request_complete and not (self._buffer or self._is_paused):
                self._is_closing = True
                self.worker.outbox.flush()
                self.transport.close()
            else:
                self._linger()
            return
        limits = worker.limits
        deadline = monotonic() + limits.idle_timeout
        self.deadline = deadline
        if deadline < self.slot_s:
            worker.wheel.arm(self, deadline)
        if self.is_write_paused:
            return  # the client must first read what it got: resume_writing goes on
        if self._buffer:
            worker.loop.call_soon(self._next_request)
        elif self._is_paused:
            self.resume_reading()

    def _next_request(self) -> None:
        """Read on in bytes that came before the last response was complete."""
        if self.handler is not None or self._is_closing or self.is_write_paused:
            return
        data, self._buffer = self._buffer, b""
        self.resume_reading()
        if data:
            self._read_head(data)

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
            self._is_closing = True
            self.worker.outbox.flush()
            self.transport.close()

    def reset(self) -> None:
        """End the connection so that the client cannot mistake what it has for a whole response."""
        self._is_closing = True
        kernel.reset(self.transport)

    def _wait(self, seconds: float) -> None:
        deadline = monotonic() + seconds
        self.deadline = deadline
        if deadline < self.slot_s:
            self.worker.wheel.arm(self, deadline)
