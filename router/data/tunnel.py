"""An upgraded connection (WebSocket): bytes both ways, until both sides have said all they had to.

Takes over from an `Exchange` when the endpoint answered 101 to an upgrade that was asked for; ends
in `Exchange.finish` like everything else. Bytes are not looked at.

1. Whoever is slower stops the other, as in an exchange.
2. A side that closes for writing (half-close) is told on; the tunnel ends when both did, and what
   was said last still leaves. A side that breaks off is told on as a reset.
3. Silence in both directions for `timeout.tunnel` ends it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from router.data.upstream import Upstream
from router.errors import Refusal
from router.http1.response import ResponseHead

if TYPE_CHECKING:
    from router.data.downstream import Downstream
    from router.data.endpoint import EndpointPool


class Tunnel:
    """Implements `upstream.Call` and `downstream.Handler`."""

    is_head = False
    is_upgrade = False
    is_request_complete = True

    def __init__(
        self, downstream: "Downstream", upstream: Upstream, finish: Callable[[bool], None]
    ) -> None:
        self.is_finished = False
        self._downstream = downstream
        self._upstream = upstream
        self._finish = finish
        self._has_client_ended = False
        self._has_endpoint_ended = False

    def __repr__(self) -> str:
        return f"<Tunnel {self._upstream.pool.url}>"

    # from the client

    def start(self, payload: bytes, complete: bool) -> None:
        """Send on what the client sent before the switch."""
        if payload:
            self.on_request_body(payload, False)

    def on_request_body(self, payload: bytes, complete: bool) -> None:
        self._upstream.expect_progress()
        self._upstream.write(payload)

    def on_client_ended(self) -> None:
        """The client will send no more."""
        self._has_client_ended = True
        if self._has_endpoint_ended:
            self._end(is_clean=True)
        else:
            self._upstream.write_eof()

    def on_client_paused(self) -> None:
        self._upstream.pause_reading()

    def on_client_resumed(self) -> None:
        self._upstream.resume_reading()

    def on_client_gone(self) -> None:
        self._end(is_clean=False)

    # from the endpoint

    def on_body(self, payload: bytes, complete: bool) -> None:
        if payload:
            self._upstream.expect_progress()
            self._downstream.write(payload)
        if complete:  # the endpoint will send no more
            self._has_endpoint_ended = True
            if self._has_client_ended:
                self._end(is_clean=True)
            else:
                self._downstream.write_eof()

    def on_upstream_paused(self) -> None:
        self._downstream.pause_reading()

    def on_upstream_resumed(self) -> None:
        self._downstream.resume_reading()

    def on_upstream_lost(self, refusal: Refusal, detail: str) -> None:
        self._upstream.pool.count_failure(refusal.reason.removeprefix("upstream-"))
        self._end(is_clean=False)

    # what cannot happen after the switch

    def on_connected(self, upstream: Upstream) -> None:
        raise AssertionError("a tunnel asks for no connection")

    def on_refused(self, refusal: Refusal, detail: str, failed: "EndpointPool | None") -> None:
        raise AssertionError("a tunnel asks for no connection")

    def on_interim(self, head: ResponseHead) -> None:
        raise AssertionError("heads end before a tunnel begins")

    def on_switched(self, head: ResponseHead, payload: bytes) -> None:
        raise AssertionError("heads end before a tunnel begins")

    def on_response(self, head: ResponseHead, payload: bytes, complete: bool) -> None:
        raise AssertionError("heads end before a tunnel begins")

    def on_endpoint_down(self) -> None:
        raise AssertionError("heads end before a tunnel begins")

    # the end

    def _end(self, is_clean: bool) -> None:
        if self.is_finished:
            return
        self.is_finished = True
        if is_clean:
            self._upstream.close()
        else:
            self._upstream.reset()
        self._finish(is_clean)
