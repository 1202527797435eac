"""One client connection: finds heads and bodies in its bytes, one exchange at a time, in order.

Owns the reading side's framing and the order of requests; its base, in `ending.py`, the clock and
the end. Strategy:

1. Bytes are a head's, then a body's, then the next head's; in a tunnel they are the tunnel's.
2. What comes ahead of its turn is kept, within a bound. Past that, and whenever the endpoint is the
   slower one, reading stops.
3. A bug of ours costs the client that met it, and nobody else.
"""

import asyncio
import re
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from router.data import kernel
from router.data.ending import Ending
from router.data.exchange import Exchange
from router.data.pages import OwnPage
from router.data.roles import Handler
from router.data.tls import IDENTITY
from router.data.tunnel import Tunnel
from router.errors import HEAD_TOO_LARGE, INTERNAL, MALFORMED, HeadError
from router.http1.fields import BARE_NEWLINE
from router.http1.forwarded import ClientAddress
from router.http1.request_body import RequestBody
from router.http1.request_head import RequestHead

if TYPE_CHECKING:
    from router.data.worker import Worker

BUFFER_HIGH_BYTES: Final = 0
"""Bytes queued towards a client past which the endpoint's sending is paused. The loop reads up to
250 KiB at once: with nothing more on top, that is what one direction of an exchange costs."""
PIPELINE_MAX_BYTES: Final = 4 * 1024
"""Bytes of further requests kept while one is in progress; past that we stop reading."""
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)+")


class Downstream(Ending):
    """One client connection."""

    __slots__ = ("_tunnel", "peer")

    def __init__(self, worker: "Worker") -> None:
        super().__init__(worker)
        self.peer = cast(ClientAddress, None)
        self._tunnel: Tunnel | None = None

    def __repr__(self) -> str:
        return f"<Downstream {self.peer.client} [{self.handler or 'idle'}]>"

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        try:
            self._enter()
        except Exception as error:
            self._give_up(error)

    def _enter(self) -> None:
        """It is one of the clients from now on, and the first head is awaited."""
        transport, clients = self.transport, self.worker.clients
        transport.set_write_buffer_limits(BUFFER_HIGH_BYTES)
        kernel.bound_unsent(transport)
        name = transport.get_extra_info("peername")
        self.peer = clients.peer_of(name[0] if name else "", transport.get_extra_info(IDENTITY))
        self._is_surplus = clients.enter(self, self.worker.limits)
        self.worker.acceptor.look(transport)
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

    # back-pressure

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

    # a request

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
        is_own = head.path.startswith(b"/-/") or head.path in self.worker.own_paths
        if is_own or head.is_last_hop:
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

    # what follows on it

    def begin_tunnel(self, tunnel: Tunnel) -> None:
        """From now on bytes are the tunnel's, those that came ahead of the switch included."""
        self._tunnel = tunnel
        self.handler = tunnel
        data, self._buffer = self._buffer, b""
        self.resume_reading()  # first: the tunnel may stop us again
        tunnel.start(data, False)
        if self.is_write_paused:
            tunnel.on_client_paused()

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
                self._close()
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
