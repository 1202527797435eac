"""A second attempt of an exchange's request beside the first, which is slow.

It asks on its own connection and tells `Attempts` how that ended: with a head (`on_hedge_answer`),
or without (`on_hedge_failed`). When the first attempt fails it takes its place: from then on the
connection, or the wait for one, is the exchange's.
"""

from typing import TYPE_CHECKING

from router.data.endpoint import EndpointPool
from router.data.upstream import Upstream
from router.errors import Refusal
from router.http1.response import ResponseHead

if TYPE_CHECKING:
    from router.data.asking import Asking
    from router.data.attempts import Attempts


class Hedge:
    """Implements `upstream.Call`."""

    __slots__ = (
        "_attempts", "_exchange", "_is_in_place", "is_finished", "is_head", "is_request_complete",
        "is_upgrade", "upstream",
    )  # fmt: skip

    def __init__(self, exchange: "Asking", attempts: "Attempts") -> None:
        self.is_head = exchange.is_head
        self.is_upgrade = False
        self.is_request_complete = True
        self.is_finished = False
        self.upstream: Upstream | None = None
        self._exchange = exchange
        self._attempts = attempts
        self._is_in_place = False

    def __repr__(self) -> str:
        return f"<Hedge of {self._exchange!r}>"

    def take_place(self) -> None:
        """The first attempt is over: the connection is the exchange's, now or when there is one."""
        self._is_in_place = True
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.hand_over(self._exchange)
            self._exchange.upstream = upstream

    def drop(self) -> None:
        """Nobody waits for it any more."""
        self.is_finished = True
        if self.upstream is not None:
            self.upstream.abort()

    def on_connected(self, upstream: Upstream) -> None:
        if self._is_in_place:
            upstream.hand_over(self._exchange)
            self._exchange.on_connected(upstream)
            return
        self.upstream = upstream
        upstream.expect_response()
        upstream.write(b"".join(self._exchange.held))

    def on_refused(self, refusal: Refusal, detail: str, failed: EndpointPool | None) -> None:
        self.is_finished = True
        if self._is_in_place:
            self._exchange.on_refused(refusal, detail, failed)
        else:
            self._attempts.on_hedge_failed(failed)

    def on_interim(self, head: ResponseHead) -> None:
        pass

    def on_switched(self, head: ResponseHead, payload: bytes) -> None:
        raise AssertionError("no second attempt is made for an upgrade")

    def on_response(self, head: ResponseHead, payload: bytes, complete: bool) -> None:
        self.is_finished = True
        upstream = self.upstream
        assert upstream is not None  # noqa: S101 - a connection of ours calls this
        self._attempts.on_hedge_answer(upstream, head, payload, complete)

    def on_body(self, payload: bytes, complete: bool) -> None:
        raise AssertionError("with its head the connection is the exchange's, or gone")

    def on_upstream_lost(self, refusal: Refusal, detail: str) -> None:
        self.is_finished = True
        upstream = self.upstream
        assert upstream is not None  # noqa: S101 - only a connection of ours calls this
        upstream.pool.count_failure(refusal.reason.removeprefix("upstream-"))
        self._attempts.on_hedge_failed(upstream.pool)

    def on_endpoint_down(self) -> None:
        upstream = self.upstream
        assert upstream is not None  # noqa: S101 - only a connection of ours calls this
        self.drop()
        self._attempts.on_hedge_failed(upstream.pool)

    def on_upstream_paused(self) -> None:
        pass  # all there is to send was written

    def on_upstream_resumed(self) -> None:
        pass
