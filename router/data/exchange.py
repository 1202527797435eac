"""One request with its response: an event-driven state machine, methods in the order of its life.

1. `start` routes, assigns and asks the variant's pool for a connection; with an idle one at hand
   all of that happens in the call that read the request, without a task, a future or a timer.
2. Bytes are relayed as they come. Whoever is slower stops the other: `on_upstream_paused`,
   `on_client_paused`.
3. Another endpoint or a fresh connection is tried only while nothing of the request can have been
   acted on, or the method is idempotent and the request still at hand (RFC 9110 section 9.2.2).
4. Every path ends in `finish`, once: counts, mirrors, access log, and the client's next request.
"""

import logging
from time import monotonic, time
from typing import TYPE_CHECKING, Final

from router import logs, receipts
from router.data.bindings import RouteBinding, VariantBinding
from router.data.mirror import Copies
from router.data.pool import EndpointPool
from router.data.tunnel import Tunnel
from router.data.upstream import Upstream
from router.errors import NO_ROUTE, UPSTREAM_RESET, Refusal
from router.http1.body import LAST_CHUNK, encode_chunk
from router.http1.problem import write_problem
from router.http1.request import (
    CHUNKED,
    UPGRADE_LINES,
    RequestHead,
    name_endpoint,
    write_request_head,
)
from router.http1.response import ResponseHead
from router.messages import Decision

if TYPE_CHECKING:
    from router.data.downstream import Downstream

REPLAY_MAX_BYTES: Final = 64 * 1024
"""Request bytes kept so that an idempotent request can be sent again."""
ATTEMPTS_MAX: Final = 3
_log = logging.getLogger("router.data")
_IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))


class Exchange:
    """Implements `upstream.Call`."""

    # defaults of what most exchanges never touch; not slots, which could have none
    upstream: Upstream | None = None
    is_request_complete = False
    is_finished = False
    _route: RouteBinding | None = None
    _variant: VariantBinding | None = None
    _decision: Decision | None = None
    _held_bytes = 0
    _was_sent = False
    _attempts = 1
    _avoid: frozenset[str] = frozenset()
    _status = 0
    _is_response_begun = False
    _is_client_chunked = False
    _copies: Copies | None = None

    def __init__(self, downstream: "Downstream", head: RequestHead) -> None:
        self.downstream = downstream
        self.worker = downstream.worker
        self.request_id = head.request_id or self.worker.next_request_id()
        self.is_head = head.method == b"HEAD"
        self.is_upgrade = head.is_upgrade
        self._head = head
        self._keep_alive = head.keep_alive
        self._started_s = monotonic()
        self._held: list[bytes] = []

    def __repr__(self) -> str:
        where = self._variant.name if self._variant else "no variant"
        return f"<Exchange {self._head.method.decode()} {self._head.path!r} [{where}]>"

    # 1. route, assign, pick

    def start(self, payload: bytes, complete: bool) -> None:
        """Begin, with what has come of the body; `complete` when that is all of it."""
        worker = self.worker
        head = self._head
        snapshot = worker.snapshot
        route = snapshot.table.match(head)
        if route is None:
            self.is_request_complete = complete
            self.refuse(NO_ROUTE, "no route matches this host, path, method and headers")
            return
        binding = self._route = snapshot.bindings[route.index]
        decision = binding.assign(head, worker.random())
        variant = self._variant = binding.variants[decision.variant]
        reasons = variant.tally.reasons
        reasons[decision.reason] = reasons.get(decision.reason, 0) + 1
        self._decision = decision
        if binding.mirrors and not self.is_upgrade:
            self._copies = Copies(binding.mirrors)
            self._copies.add(payload)
        if head.is_http10:
            name_endpoint(head, variant.pool.authority)
        head_bytes = write_request_head(head, head.body_bytes, self.request_id)
        self._hold(head_bytes + self._framed(payload, complete))
        self.is_request_complete = complete
        variant.pool.submit(self)

    def on_connected(self, upstream: Upstream) -> None:
        self.upstream = upstream
        held = self._held
        upstream.write(held[0] if len(held) == 1 else b"".join(held))
        self._was_sent = True
        if self._head.method not in _IDEMPOTENT:
            self._held = []
        if self.is_request_complete:
            upstream.expect_response()
        else:
            if self._head.expects_continue:
                upstream.expect_progress()
            else:
                upstream.expect_nothing()
            self.downstream.resume_reading()

    def on_refused(self, refusal: Refusal, detail: str, failed: EndpointPool | None) -> None:
        """No connection, so nothing was sent: any method may go to another endpoint."""
        if failed is not None and self._try_again("connect", failed):
            return
        self.refuse(refusal, detail)

    # 2. request body

    def on_request_body(self, payload: bytes, complete: bool) -> None:
        """More of the client's body; `payload` may be empty when `complete`."""
        if self._copies is not None:
            self._copies.add(payload)
        data = self._framed(payload, complete)
        self.is_request_complete = complete
        upstream = self.upstream
        if upstream is None:
            if not self._is_response_begun:
                self._hold(data)
                if not complete:  # else we read on, to see it when the client leaves
                    self.downstream.pause_reading()
            return
        if self._held:
            self._hold(data)
        if data:
            upstream.write(data)
        if not self._is_response_begun:
            self._expect(upstream)

    def on_upstream_paused(self) -> None:
        self.downstream.pause_reading()
        upstream = self.upstream
        if upstream and not (self._is_response_begun or self.is_request_complete):
            upstream.expect_progress()

    def on_upstream_resumed(self) -> None:
        self.downstream.resume_reading()
        if self.upstream is not None and not self._is_response_begun:
            self._expect(self.upstream)

    def _expect(self, upstream: Upstream) -> None:
        """Start the endpoint's clock, or stop it while the client's body is what is missing."""
        if self.is_request_complete:
            upstream.expect_response()
        else:
            upstream.expect_nothing()

    def _framed(self, payload: bytes, complete: bool) -> bytes:
        if self._head.body_bytes != CHUNKED:
            return payload
        data = encode_chunk(payload) if payload else b""
        return data + LAST_CHUNK if complete else data

    def _hold(self, data: bytes) -> None:
        """Keep request bytes until they are sent, and after that while they are few."""
        self._held.append(data)
        self._held_bytes += len(data)
        if self._was_sent and self._held_bytes > REPLAY_MAX_BYTES:
            self._held.clear()

    # 3. response

    def on_interim(self, head: ResponseHead) -> None:
        if not self._head.is_http10:
            self.downstream.write(head.relayed + b"\r\n")

    def on_switched(self, head: ResponseHead, payload: bytes) -> None:
        upstream, self.upstream = self.upstream, None
        assert upstream is not None  # noqa: S101 - a connection of ours calls this
        self._is_response_begun = True
        self._status = head.status
        tunnel = Tunnel(self.downstream, upstream, self._on_tunnel_end)
        upstream.hand_over(tunnel)
        lines = (head.relayed, self._own_lines(), UPGRADE_LINES, b"\r\n", payload)
        self.downstream.write(b"".join(lines))
        self.downstream.begin_tunnel(tunnel)

    def _on_tunnel_end(self, is_clean: bool) -> None:
        self._keep_alive = False
        if not is_clean:
            self.downstream.reset()
        self.finish()

    def on_response(self, head: ResponseHead, payload: bytes, complete: bool) -> None:
        self._is_response_begun = True
        self._status = head.status
        if self._head.is_http10:
            self._keep_alive = False
            start = head.relayed
            if head.declared_length is not None:
                start = head.framed
        else:
            start = head.framed
            if head.body_bytes < 0:
                self._is_client_chunked = True
                payload = encode_chunk(payload) if payload else b""
                if complete:
                    payload += LAST_CHUNK
        if not self.is_request_complete or self.worker.is_draining:
            self._keep_alive = False
        end = b"\r\n" if self._keep_alive else b"connection: close\r\n\r\n"
        if not head.has_date:  # RFC 9110 section 6.6.1
            end = self.worker.date_line + end
        if complete:
            self.upstream = None
        self.downstream.write(b"".join((start, self._own_lines(), end, payload)))
        if complete:
            self.finish()

    def on_body(self, payload: bytes, complete: bool) -> None:
        if complete:
            self.upstream = None
        if self._is_client_chunked:
            data = encode_chunk(payload) if payload else b""
            if complete:
                data += LAST_CHUNK
        else:
            data = payload
        if data:
            self.downstream.write(data)
        if complete:
            self.finish()

    def on_client_paused(self) -> None:
        """The client takes no more: stop reading from the endpoint."""
        if self.upstream is not None:
            self.upstream.pause_reading()

    def on_client_resumed(self) -> None:
        """The client takes bytes again."""
        if self.upstream is not None:
            self.upstream.resume_reading()

    def _own_lines(self) -> bytes:
        variant, route, decision = self._variant, self._route, self._decision
        assert variant and route and decision  # noqa: S101 - a response has a route
        own = b"%bx-request-id: %b\r\n" % (variant.own_lines, self.request_id)
        if decision.set_cookie is not None:
            own += b"set-cookie: %b\r\n" % decision.set_cookie
        if route.receipt_key:
            own += b"x-router-receipt: %b\r\n" % receipts.issue(
                route.receipt_key,
                variant.receipt_names,
                decision.propensity,
                int(time()),
                self.worker.next_nonce(),
            )
        return own

    # 4. failure

    def on_upstream_lost(self, refusal: Refusal, detail: str) -> None:
        """The endpoint failed after the request went out."""
        upstream, self.upstream = self.upstream, None
        assert upstream is not None  # noqa: S101 - only a connection of ours calls this
        upstream.pool.count_failure(refusal.reason.removeprefix("upstream-"))
        if self._is_response_begun:
            self._cut()
            return
        may_repeat = refusal is UPSTREAM_RESET and self._head.method in _IDEMPOTENT
        if may_repeat and self._try_again("reset", upstream.pool):
            return
        self.refuse(refusal, f"{upstream.pool.url}: {detail}")

    def _try_again(self, reason: str, failed: EndpointPool) -> bool:
        """Submit once more, elsewhere if possible. False when that is not allowed any more."""
        if self._attempts >= ATTEMPTS_MAX or not self._held or self._variant is None:
            return False
        self._attempts += 1
        self._avoid |= {failed.url}
        if self.is_request_complete:  # what the lost connection paused, nobody would resume
            self.downstream.resume_reading()
        pool = self._variant.pool
        pool.count_retry(reason)
        pool.submit(self, self._avoid)
        return True

    def refuse(self, refusal: Refusal, detail: str) -> None:
        """Answer in the router's own name. Nothing of a response has gone out yet."""
        downstream, worker = self.downstream, self.worker
        worker.stats.count_refusal(refusal)
        self._status = refusal.status
        self._is_response_begun = True
        self._abandon_upstream()
        if refusal.close or not self.is_request_complete or worker.is_draining:
            self._keep_alive = False
        downstream.write(
            write_problem(
                refusal,
                detail,
                self.request_id,
                date=worker.date_line,
                is_head=self.is_head,
                close=not self._keep_alive,
            )
        )
        self.finish()

    def refuse_or_cut(self, refusal: Refusal, detail: str) -> None:
        """The client's side broke: answer if nothing has gone out yet, else break off."""
        if self._is_response_begun:
            self._abandon_upstream()
            self._cut()
        else:
            self.refuse(refusal, detail)

    def _cut(self) -> None:
        """The response cannot be completed; the client must see that: no clean end is written."""
        key = ("pointsman_truncated_total", *self._labels())
        self.worker.stats.counters[key] += 1
        self._keep_alive = False
        self._status = 502
        self.downstream.reset()
        self.finish()

    def on_client_gone(self) -> None:
        """The client left, or is too slow: the endpoint's work is cancelled."""
        if self.is_finished:
            return
        key = ("pointsman_client_aborts_total", *self._labels())
        self.worker.stats.counters[key] += 1
        self._keep_alive = False
        if not self._is_response_begun:
            self._status = 0
        self._abandon_upstream()
        self.finish()

    def _abandon_upstream(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abort()

    def _labels(self) -> tuple[str, str]:
        return (
            self._route.route.name if self._route else "",
            self._variant.name if self._variant else "",
        )

    # 5. the one exit

    def finish(self) -> None:
        """Account for the exchange and let the client's connection go on. Runs once, always."""
        self.is_finished = True
        elapsed_s = monotonic() - self._started_s
        worker = self.worker
        variant = self._variant
        tally = variant.tally if variant is not None else worker.unrouted
        tally.observe(self._status, elapsed_s)
        if self._copies is not None:
            self._copies.send(self._head, self.request_id, self.is_request_complete)
        if worker.access_sample and worker.random() < worker.access_sample:
            self._log_access(elapsed_s)
        self.downstream.on_exchange_end(self._keep_alive, self.is_request_complete)

    def _log_access(self, elapsed_s: float) -> None:
        head = self._head
        route, variant = self._labels()
        logs.event(
            _log,
            "access",
            client=head.client,
            method=head.method.decode("ascii"),
            path=head.path.decode("ascii"),
            status=self._status,
            ms=round(elapsed_s * 1000, 2),
            route=route,
            variant=variant,
            request_id=self.request_id.decode("ascii"),
        )
