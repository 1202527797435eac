"""One client connection: finds heads and bodies in its bytes, one exchange at a time, in order.

Owns the reading side's framing and the connection's end. After any doubt about where a message ends
the connection is closed, but only after the client had a chance to read our answer (`_linger`).
"""

import asyncio
import re
import socket
import struct
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol, cast

from router.data.exchange import Exchange
from router.data.tunnel import Tunnel
from router.errors import BODY_TOO_LARGE, HEAD_TOO_LARGE, MALFORMED, SLOW_CLIENT, HeadError
from router.http1.body import ChunkedDecoder
from router.http1.forwarded import ClientAddress
from router.http1.problem import write_problem
from router.http1.request import CHUNKED, RequestHead

if TYPE_CHECKING:
    from router.data.worker import Worker

BUFFER_HIGH_BYTES: Final = 64 * 1024
"""Bytes queued towards a client past which the endpoint's sending is paused."""
PIPELINE_MAX_BYTES: Final = 64 * 1024
"""Bytes of further requests kept while one is in progress; past that we stop reading."""
LINGER_S: Final = 2.0
"""How long a client may take to read our last answer before the connection is closed."""
_BARE_NEWLINE: Final = re.compile(rb"(?:\A|[^\r])\n")


class Handler(Protocol):
    """What serves a request: an `Exchange`, or one of the router's own pages."""

    def start(self, payload: bytes, complete: bool) -> None: ...
    def on_request_body(self, payload: bytes, complete: bool) -> None: ...
    def on_client_paused(self) -> None: ...
    def on_client_resumed(self) -> None: ...
    def on_client_gone(self) -> None: ...


class Downstream(asyncio.Protocol):
    """One client connection. Also a `wheel.Timed`: the deadline is the client's own."""

    __slots__ = (
        "_body_bytes", "_buffer", "_decoder", "_head_began", "_is_body_done", "_is_closing",
        "_is_paused", "_is_write_paused", "_remaining", "_tunnel", "_unread_bytes", "deadline",
        "handler", "peer", "slot_s", "transport", "worker",
    )  # fmt: skip

    def __init__(self, worker: "Worker") -> None:
        # per connection
        self.worker = worker
        self.transport = cast(asyncio.Transport, None)
        self.peer = cast(ClientAddress, None)
        self.deadline = inf
        self.slot_s = inf
        self._buffer = b""
        self._is_paused = False
        self._is_closing = False
        self._is_write_paused = False
        self._unread_bytes = 0
        self._tunnel: Tunnel | None = None
        # per request
        self.handler: Handler | None = None
        self._head_began = False
        self._remaining = 0
        self._decoder: ChunkedDecoder | None = None
        self._is_body_done = True
        self._body_bytes = 0

    def __repr__(self) -> str:
        return f"<Downstream {self.peer.client} [{self.handler or 'idle'}]>"

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(BUFFER_HIGH_BYTES)
        name = transport.get_extra_info("peername")
        self.peer = self.worker.peer_of(name[0] if name else "")
        self.worker.on_connection(self)
        self._wait(self.worker.limits.head_timeout)

    def data_received(self, data: bytes) -> None:
        if self._is_closing:
            return  # lingering: what comes now is nobody's
        if self.handler is None and not self._is_write_paused:
            if self._buffer:
                data = self._buffer + data
            self._read_head(data)
        elif self._is_body_done:
            self._buffer += data
            if len(self._buffer) > PIPELINE_MAX_BYTES:
                self.pause_reading()
        else:
            self._read_body(data)

    def eof_received(self) -> bool:
        """A client that closes its side gets nothing more: its endpoint's work is cancelled.

        In a tunnel it only says that it has no more to send.
        """
        if self._tunnel is None or self._is_closing:
            return False
        self._tunnel.on_client_ended()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.worker.wheel.drop(self)
        self._is_closing = True
        handler, self.handler = self.handler, None
        if handler is not None:
            handler.on_client_gone()
        self.worker.on_connection_lost(self)

    def pause_writing(self) -> None:
        self._is_write_paused = True
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._wait(self.worker.limits.body_timeout)
        if self.handler is not None:
            self.handler.on_client_paused()

    def resume_writing(self) -> None:
        self._is_write_paused = False
        if self.handler is not None:
            self.deadline = inf
            self.handler.on_client_resumed()
        elif self._buffer:
            self._next_request()

    # Timed

    def on_deadline(self) -> None:
        handler = self.handler
        if self._is_closing or (handler is None and not self._head_began):
            self.transport.abort()
        elif handler is None:
            self._refuse(HeadError(SLOW_CLIENT, "the head did not end in time"))
        elif self._is_body_done or self._tunnel:  # the client does not read, or reads slowly
            unread = self.transport.get_write_buffer_size()
            if unread < self._unread_bytes:
                self._unread_bytes = unread
                self._wait(self.worker.limits.body_timeout)
                return
            self.reset()
            self.handler = None
            handler.on_client_gone()
        elif isinstance(handler, Exchange) and not handler.is_finished:
            handler.refuse_or_cut(SLOW_CLIENT, "the body stopped coming")
        else:
            self.reset()

    # reading

    def pause_reading(self) -> None:
        """Take no more from the client; its clock stops, since it is not the one who waits."""
        if not (self._is_paused or self._is_closing or self.transport.is_closing()):
            self._is_paused = True
            self.transport.pause_reading()
            if not self._is_body_done:
                self.deadline = inf

    def resume_reading(self) -> None:
        """Take bytes again."""
        if self._is_paused and not (self._is_closing or self.transport.is_closing()):
            self._is_paused = False
            self.transport.resume_reading()
            if not self._is_body_done and self._tunnel is None:
                self._wait(self.worker.limits.body_timeout)

    def _read_head(self, data: bytes) -> None:
        if data.startswith(b"\r\n"):
            data = data[2:]  # RFC 9112 section 2.2: an empty line before a request is ignored
        end = data.find(b"\r\n\r\n")
        limit = self.worker.limits.head_bytes
        try:
            if end < 0 or end > limit:
                self._await_head(data, limit)
                return
            head = self.worker.parser.parse(data[:end], self.peer)
        except HeadError as error:
            self._refuse(error)
            return
        self._buffer = b""
        self._head_began = False
        self.deadline = inf
        self._begin(head, data[end + 4 :])

    def _await_head(self, data: bytes, limit: int) -> None:
        if len(data) > limit:
            raise HeadError(HEAD_TOO_LARGE, f"the head is longer than {limit} bytes")
        if _BARE_NEWLINE.search(data):
            raise HeadError(MALFORMED, "a line of the head ends without CR")
        if data and not self._head_began:
            self._head_began = True
            self._wait(self.worker.limits.head_timeout)
        self._buffer = data

    def _begin(self, head: RequestHead, rest: bytes) -> None:
        """A whole head came; `rest` follows it."""
        worker = self.worker
        body_bytes = head.body_bytes
        handler: Handler
        if head.path.startswith(b"/-/"):
            handler = worker.own_page(self, head)
        else:
            handler = Exchange(self, head)
        self.handler = handler
        worker.in_flight += 1
        if body_bytes == 0:
            self._is_body_done = True
            self._buffer = rest
            handler.start(b"", True)
        elif body_bytes == CHUNKED:
            self._is_body_done = False
            self._body_bytes = 0
            self._decoder = ChunkedDecoder()
            self._read_chunked(rest, handler.start)
        elif body_bytes > worker.limits.body_bytes:
            self._is_body_done = False
            self._refuse_body(body_bytes)
        elif len(rest) >= body_bytes:
            self._is_body_done = True
            self._buffer = rest[body_bytes:]
            handler.start(rest[:body_bytes], True)
        else:
            self._is_body_done = False
            self._decoder = None
            self._remaining = body_bytes - len(rest)
            self._wait(worker.limits.body_timeout)
            handler.start(rest, False)

    def _read_body(self, data: bytes) -> None:
        handler = self.handler
        assert handler is not None  # noqa: S101 - data_received looked
        if self._tunnel is not None:
            handler.on_request_body(data, False)
            return
        if self._decoder is not None:
            self._read_chunked(data, handler.on_request_body)
            return
        remaining = self._remaining
        if len(data) < remaining:
            self._remaining = remaining - len(data)
            self._wait(self.worker.limits.body_timeout)
            handler.on_request_body(data, False)
        else:
            self._body_done(data[remaining:])
            handler.on_request_body(data[:remaining], True)

    def _read_chunked(self, data: bytes, deliver: Callable[[bytes, bool], None]) -> None:
        decoder = self._decoder
        assert decoder is not None  # noqa: S101 - callers look first
        try:
            payload = decoder.feed(data)
        except HeadError as error:
            self._refuse(error)
            return
        self._body_bytes += len(payload)
        if self._body_bytes > self.worker.limits.body_bytes:
            self._refuse_body(self._body_bytes)
        elif decoder.done:
            self._body_done(decoder.rest)
            deliver(payload, True)
        else:
            self._wait(self.worker.limits.body_timeout)
            deliver(payload, False)

    def _body_done(self, rest: bytes) -> None:
        self._is_body_done = True
        self._decoder = None
        self._buffer = rest
        self.deadline = inf

    def begin_tunnel(self, tunnel: Tunnel) -> None:
        """From now on bytes are the tunnel's, those that came ahead of the switch included."""
        self._tunnel = tunnel
        self.handler = tunnel
        self._is_body_done = False
        data, self._buffer = self._buffer, b""
        tunnel.start(data, False)
        self.resume_reading()

    # writing and ending

    def write_eof(self) -> None:
        """Close our side, after what was written has left."""
        self.worker.outbox.flush()
        if not self.transport.is_closing():
            self.transport.write_eof()

    def write(self, data: bytes) -> None:
        """Send `data` to the client."""
        self.worker.outbox.write(self.transport, data)

    def _refuse_body(self, body_bytes: int) -> None:
        limit = self.worker.limits.body_bytes
        detail = f"the body has {body_bytes} bytes or more, expected no more than {limit}"
        self._refuse(HeadError(BODY_TOO_LARGE, detail))

    def _refuse(self, error: HeadError) -> None:
        """The bytes cannot be understood or are too many: answer, then close."""
        handler = self.handler
        if isinstance(handler, Exchange):
            handler.refuse_or_cut(error.refusal, error.detail)
            return
        if handler is None:
            self.worker.count_unparsed(error.refusal)
        else:
            self.handler = None
            handler.on_client_gone()
        self.write(write_problem(error.refusal, error.detail, b"", close=True))
        self._linger()

    def on_exchange_end(self, keep_alive: bool, is_request_complete: bool) -> None:
        """The handler is done; its response was written. Go on with the next request, or close."""
        self.handler = None
        worker = self.worker
        worker.in_flight -= 1
        if self._is_closing:
            return
        if not keep_alive or worker.is_draining:
            if is_request_complete:
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
        if self._is_write_paused:
            return  # the client must first read what it got: resume_writing goes on
        if self._buffer:
            worker.loop.call_soon(self._next_request)
        elif self._is_paused:
            self.resume_reading()

    def _next_request(self) -> None:
        """Read on in bytes that came before the last response was complete."""
        if self.handler is not None or self._is_closing or self._is_write_paused:
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

    def close_if_idle(self) -> None:
        """Draining: a connection between requests has nothing to wait for."""
        if self.handler is None and not self._is_closing and not self._head_began:
            self._is_closing = True
            self.worker.outbox.flush()
            self.transport.close()

    def reset(self) -> None:
        """End the connection so that the client cannot mistake what it has for a whole response."""
        self._is_closing = True
        sock = self.transport.get_extra_info("socket")
        if sock is not None and not self.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _wait(self, seconds: float) -> None:
        deadline = monotonic() + seconds
        self.deadline = deadline
        if deadline < self.slot_s:
            self.worker.wheel.arm(self, deadline)
