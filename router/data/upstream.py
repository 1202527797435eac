"""One connection to an endpoint: sends a request, reads one response, returns to its pool.

This is its second half, from the first byte that comes back; `sending.py` is the first. Owns the
reading side's framing and every suspicion of an endpoint: bytes that nobody asked for, bytes after
a response, a head that does not end, a body cut short. What it learns it tells its `Call` (an
exchange or a shadow copy), which never sees a raw byte. Every way out of a request is here, too:

1. A response that is whole gives the connection back to the pool, unless in doubt (`_complete`).
2. Every other end closes it. The call is taken off first, so that it and the pool are told once.
"""

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final

from router.data import kernel
from router.data.roles import Call
from router.data.sending import Reading, Sending
from router.data.tls import why_lost
from router.errors import (
    INTERNAL,
    UPSTREAM_MALFORMED,
    UPSTREAM_REMOVED,
    UPSTREAM_RESET,
    HeadError,
    Refusal,
)
from router.http1.body import ChunkedDecoder
from router.http1.fields import BARE_NEWLINE
from router.http1.response import CHUNKED, UNTIL_CLOSE, ResponseHead

if TYPE_CHECKING:
    from router.data.endpoint import EndpointPool

INTERIM_MAX: Final = 16
"""Interim (1xx) responses before a final one; real servers send one or two."""


class Upstream(Sending):
    """One connection; belongs to an `EndpointPool`."""

    __slots__ = (
        "_buffer", "_decoder", "_eof", "_interims", "_keep_alive", "_keep_alive_s", "_remaining",
        "address", "is_leaving",
    )  # fmt: skip

    def __init__(self, pool: "EndpointPool") -> None:
        super().__init__(pool)
        # per connection
        self.address = ""
        """The IP address it is connected to."""
        self.is_leaving = False
        """It is for this call only, because its address is gone or has too many others."""
        self._keep_alive_s = pool.keep_alive_s
        self._eof = False
        # per request
        self._buffer = b""
        self._remaining = 0
        self._decoder: ChunkedDecoder | None = None
        self._interims = 0
        """Since the last final head: none when a request begins."""
        self._keep_alive = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.pool.connections.add(self)

    # reading

    def data_received(self, data: bytes) -> None:
        call = self.call
        try:
            if call is None:
                self.pool.count_failure("unsolicited")
                self.transport.abort()
            elif self._reading == Reading.HEAD:
                if self._begun_at != self.pool.outbox.flushes:
                    self._read_head(data, call)
                else:  # the request has not left yet: whatever this is, it is no answer to it
                    self.pool.count_failure("unsolicited")
                    self._fail(UPSTREAM_RESET, "the connection held bytes that nobody asked for")
            elif self._reading == Reading.LENGTH:
                self._read_length(data, call)
            elif self._reading == Reading.CHUNKED:
                self._read_chunked(data, call)
            else:
                self.expect_progress()
                call.on_body(data, False)
        except HeadError as error:
            self._fail(error.refusal, error.detail)
        except Exception as error:
            # a bug of ours ends this exchange, and is told; nobody else notices
            self.pool.outbox.report_bug(error)
            self._fail(INTERNAL, "the router failed on this response")

    def _read_head(self, data: bytes, call: Call) -> None:
        seen = len(self._buffer)
        """Bytes at the start of `data` that hold no end of a head, and were looked at before."""
        if seen:
            data = self._buffer + data
            self._buffer = b""
        while True:
            end = data.find(b"\r\n\r\n", max(0, seen - 3))
            limit = self.pool.head_max_bytes
            if end < 0 or end > limit:
                if BARE_NEWLINE.search(data, max(0, seen - 1)):
                    raise HeadError(UPSTREAM_MALFORMED, "a line of the head ends without CR")
                if len(data) > limit:
                    raise HeadError(UPSTREAM_MALFORMED, f"a head longer than {limit} bytes")
                self._buffer = data
                return
            head = self.pool.parser.parse(data[:end], call.is_head)
            data = data[end + 4 :]
            seen = 0
            if head.status >= 200:
                self._read_answer(head, data, call)
                return
            self._interims += 1
            if head.is_switch and call.is_upgrade:
                self._reading = Reading.TUNNEL
                self.pool.answers += 1
                self.expect_progress()
                call.on_switched(head, data)
                return
            if head.status == 101 or self._interims > INTERIM_MAX:
                raise HeadError(
                    UPSTREAM_MALFORMED, f"{self._interims} interim answers, status {head.status}"
                )
            call.on_interim(head)
            if not data or self.call is not call:
                return

    def _read_answer(self, head: ResponseHead, data: bytes, call: Call) -> None:
        """The final head came, and `data` after it: whose is it, and what is still to come."""
        pool = self.pool
        self._interims = 0
        if head.status < 500:
            pool.answers += 1
        else:
            pool.on_server_error(head)
        if pool.is_timed and call.is_request_complete:
            now = monotonic()
            pool.on_latency(now - self.sent_s, now)
        self._keep_alive = head.keep_alive
        if head.keep_alive_s is not None:
            self._keep_alive_s = min(pool.keep_alive_s, max(0.0, head.keep_alive_s - 1.0))
        body_bytes = head.body_bytes
        if body_bytes >= 0:
            if len(data) >= body_bytes:
                call.on_response(head, data[:body_bytes], True)
                self._complete(call, has_more=len(data) > body_bytes)
                return
            self._reading = Reading.LENGTH
            self._remaining = body_bytes - len(data)
        elif body_bytes == CHUNKED:
            self._begin_chunked(head, data, call)
            return
        else:
            assert body_bytes == UNTIL_CLOSE  # noqa: S101 - the three values of body_bytes below 0
            self._reading = Reading.CLOSE
            self._keep_alive = False
        self.expect_progress()
        call.on_response(head, data, False)

    def _begin_chunked(self, head: ResponseHead, data: bytes, call: Call) -> None:
        self._reading = Reading.CHUNKED
        self._decoder = decoder = ChunkedDecoder(UPSTREAM_MALFORMED)
        payload = decoder.feed(data)
        if decoder.done:
            call.on_response(head, payload, True)
            self._complete(call, has_more=bool(decoder.rest))
        else:
            self.expect_progress()
            call.on_response(head, payload, False)

    def _read_length(self, data: bytes, call: Call) -> None:
        remaining = self._remaining
        if len(data) < remaining:
            self._remaining = remaining - len(data)
            self.expect_progress()
            call.on_body(data, False)
            return
        call.on_body(data[:remaining], True)
        self._complete(call, has_more=len(data) > remaining)

    def _read_chunked(self, data: bytes, call: Call) -> None:
        decoder = self._decoder
        assert decoder is not None  # noqa: S101 - set together with Reading.CHUNKED
        payload = decoder.feed(data)
        if decoder.done:
            self._decoder = None
            call.on_body(payload, True)
            self._complete(call, has_more=bool(decoder.rest))
        else:
            self.expect_progress()
            if payload:
                call.on_body(payload, False)

    @property
    def is_waiting(self) -> bool:
        """Whether the request is out and no byte of its answer is back."""
        call = self.call
        is_at_head = self._reading == Reading.HEAD and not self._buffer
        return call is not None and is_at_head and call.is_request_complete

    # the response is whole

    def _complete(self, call: Call, has_more: bool) -> None:
        """The response is whole: back to the pool, unless anything makes the next one doubtful.

        Comes last, when `call` knows: the pool may have another call waiting, and from then on
        this connection is none of the first one's business. A connection whose request was not
        fully sent, or that holds bytes after the response, would answer the next client with
        somebody else's bytes; it is never reused.
        """
        if has_more:
            self.pool.count_failure("extra-bytes")
        if self.call is not call:
            return
        self.call = None
        if (
            has_more
            or not self._keep_alive
            or self._paused
            or not call.is_request_complete
            or self.transport.get_write_buffer_size()
            or self.transport.is_closing()
        ):
            self.pool.on_idle(self, reusable=False)
            self.transport.abort()
            return
        self.give_back()

    def give_back(self) -> None:
        """Return to the pool, fit for another call."""
        if self._is_lost:
            self.pool.on_idle(self, reusable=False)
            return
        now = monotonic()
        self.idle_since_s = now
        deadline = now + self._keep_alive_s
        self.deadline = deadline
        if deadline < self.slot_s:
            self.pool.wheel.arm(self, deadline)
        self.pool.on_idle(self, reusable=True)

    # the connection ends

    def eof_received(self) -> bool:
        self._eof = True
        self._was_unsent = self._begun_at == self.pool.outbox.flushes
        if self._reading != Reading.TUNNEL or self.call is None:
            if self.transport.get_write_buffer_size():
                self.transport.abort()  # a close would wait until the endpoint has read it all
            return False
        self.call.on_body(b"", True)
        return True  # the other direction goes on

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self.pool.wheel.drop(self)
        call = self.call
        self.call = None
        self.pool.on_closed(self, was_busy=call is not None)
        if call is None:
            return
        if self._reading == Reading.CLOSE and self._eof and exc is None:
            call.on_body(b"", True)
        else:
            self._blame()
            call.on_upstream_lost(UPSTREAM_RESET, why_lost(exc))

    @property
    def loss(self) -> str:
        """What its end means for the call: `unsent`; `stale`, it served before and was silent since
        the request left; or `reset`.
        """
        if self.is_unsent:
            return "unsent"
        is_silent = self._reading == Reading.HEAD and not (self._buffer or self._interims)
        return "stale" if is_silent and self.idle_since_s > 0.0 else "reset"

    # giving up

    def abort(self) -> None:
        """Give up on the request: the endpoint sees the connection close at once."""
        if self.call is not None:
            self.call = None
            self.pool.on_idle(self, reusable=False)
        self.transport.abort()

    def reset(self) -> None:
        """Give up so that the endpoint cannot mistake what it has for all there is."""
        kernel.reset(self.transport)
        self.abort()

    def close(self) -> None:
        """The call is over; the connection ends when what was written has left."""
        self.call = None
        self.pool.on_idle(self, reusable=False)
        self.pool.outbox.flush()
        self.transport.close()

    def cut(self) -> None:
        """The endpoint was removed or drains, and what it was asked has had its time."""
        self._fail(UPSTREAM_REMOVED, "it was taken out, and the time to finish is over")

    def _fail(self, refusal: Refusal, detail: str) -> None:
        call = self.call
        self.call = None
        self.transport.abort()
        if call is not None:
            self.pool.on_idle(self, reusable=False)
            if refusal not in (INTERNAL, UPSTREAM_REMOVED):
                self._blame()
            call.on_upstream_lost(refusal, detail)

    def _blame(self) -> None:
        """The endpoint broke off. Not if nothing was sent yet; a tunnel's end may be anybody's."""
        pool = self.pool
        if self._reading == Reading.TUNNEL or self.is_unsent:
            return
        if self._reading != Reading.HEAD:
            pool.answers -= 1  # its head looked like one
        pool.on_failure()
