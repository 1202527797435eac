"""What an exchange may try after its first attempt: again, elsewhere, or a second one beside it.

Made when the first attempt fails, or is slow where that matters; most exchanges have none. The
rules stand in `retry.py`; here is what they lead to.

1. `may_follow` decides, counts a no, and takes a place in the budget. The caller then gives up the
   connection of the failed attempt and calls `follow`.
2. Another endpoint comes first; the one that failed only when there is no other, after a wait.
3. Of a request and its hedge the first head wins. Whichever fails leaves the other to it.
4. One place in the budget at most, given back when an answer begins or the exchange ends.
"""

from asyncio import TimerHandle
from typing import TYPE_CHECKING, Final

from router.data.endpoint import EndpointPool
from router.data.hedge import Hedge
from router.data.pool import BackendPool
from router.data.retry import UNBUDGETED, Retries
from router.data.upstream import Upstream
from router.http1.response import ResponseHead

if TYPE_CHECKING:
    from router.data.asking import Asking

_NO_FAULT: Final = frozenset(("stale", "unsent"))
"""Reasons that say nothing against the endpoint: it need not be another's turn."""


class Attempts:
    """Of one exchange."""

    __slots__ = (
        "_avoid", "_count", "_exchange", "_hedge", "_is_hedge_ahead", "_is_hedged", "_place",
        "_timers", "_waits",
    )  # fmt: skip

    def __init__(self, exchange: "Asking") -> None:
        self._exchange = exchange
        self._count = 1
        self._avoid: frozenset[str] = frozenset()
        """URLs of endpoints that failed or are asked already."""
        self._place: Retries | None = None
        """Whose budget we have a place in."""
        self._timers: list[TimerHandle] = []
        self._waits = 0
        self._hedge: Hedge | None = None
        self._is_hedged = False
        """A hedge was sent whose outcome is not counted yet."""
        self._is_hedge_ahead = False
        """The hedge took the place of the first attempt."""

    def __repr__(self) -> str:
        return f"<Attempts [{self._count} made, avoiding {sorted(self._avoid)}]>"

    # again

    def may_follow(self, reason: str, failed: EndpointPool, *, only_elsewhere: bool) -> bool:
        """Whether another attempt may follow one that ended with `reason` on `failed`."""
        if self._hedge is not None and not self._is_hedge_ahead:
            return True
        pool = self._pool
        if not pool.retries.covers(reason):
            return False
        self._avoid |= {failed.url}
        if not pool.has_other(self._avoid):  # all had their turn: begin anew
            self._avoid = frozenset((failed.url,))
        if only_elsewhere and not pool.has_other(self._avoid):
            return False
        denial = self._denial(reason)
        if denial is None and reason not in UNBUDGETED and not self._take_place(pool):
            denial = "budget"
        if denial is not None:
            self._tally("pointsman_retries_denied_total", denial)
        return denial is None

    def follow(self, reason: str) -> None:
        """Make the attempt that `may_follow` allowed."""
        self._cancel_timers()
        exchange, pool = self._exchange, self._pool
        if self._hedge is not None and not self._is_hedge_ahead:
            self._is_hedge_ahead = True
            self._hedge.take_place()
            if exchange.upstream is not None:
                self.await_answer()
            return
        self._count_hedge("lost")  # it was ahead and failed as well
        is_elsewhere = pool.has_other(self._avoid)
        is_first = self._count == 1 and reason in _NO_FAULT
        if reason == "endpoint-down" or is_first or (reason == "connect" and is_elsewhere):
            self._submit(reason)
            return
        worker = exchange.worker
        self._waits += 1
        wait_s = pool.retries.wait_s(self._waits, worker.random())
        self._timers.append(worker.loop.call_later(wait_s, self._submit, reason))

    def _submit(self, reason: str) -> None:
        self._timers.clear()
        self._count += 1
        self._tally("pointsman_retries_total", reason)
        self._exchange.submit(self._avoid)

    # in time

    def await_answer(self) -> None:
        """The whole request is out: arrange what is to happen when no byte comes back in time."""
        if self._timers or self._denial("timeout") is not None:
            return
        exchange, pool = self._exchange, self._pool
        loop = exchange.worker.loop
        per_try_s, hedge = pool.retries.per_try_s, pool.config.hedge
        if per_try_s is not None:
            self._timers.append(loop.call_later(per_try_s, self._on_late))
        if hedge is not None and self._count == 1 and not exchange.is_upgrade:
            self._timers.append(loop.call_later(hedge.after, self._on_slow))

    def _on_late(self) -> None:
        """`per_try` has passed. When nothing may follow, the attempt has `timeout.first_byte`."""
        exchange = self._exchange
        upstream = exchange.upstream
        if upstream is None or not upstream.is_waiting:
            return
        if self.may_follow("timeout", upstream.pool, only_elsewhere=False):
            upstream.time_out(self._pool.retries.per_try_s or 0.0)

    def _on_slow(self) -> None:
        """`hedge.after` has passed."""
        exchange = self._exchange
        upstream, pool = exchange.upstream, self._pool
        if upstream is None or not upstream.is_waiting:
            return
        avoid = frozenset((upstream.pool.url,))
        if not pool.has_other(avoid):
            return
        if not self._take_place(pool):
            self._tally("pointsman_hedges_total", "denied")
            return
        self._count += 1
        self._is_hedged = True
        self._hedge = Hedge(exchange, self)
        pool.submit(self._hedge, avoid)

    def on_hedge_answer(
        self, upstream: Upstream, head: ResponseHead, payload: bytes, complete: bool
    ) -> None:
        """The hedge has a head before the first attempt has one."""
        if self._pool.retries.covers(str(head.status)):
            if not complete:
                upstream.abort()
            self.on_hedge_failed(upstream.pool)  # the first attempt may still do better
            return
        exchange = self._exchange
        self._hedge = None
        self._is_hedge_ahead = True
        exchange.abandon_upstream()
        exchange.upstream = upstream
        if not complete:
            upstream.hand_over(exchange)
        exchange.on_response(head, payload, complete)

    def on_hedge_failed(self, failed: EndpointPool | None) -> None:
        """The hedge is over without an answer; the first attempt is still waited for."""
        self._hedge = None
        if failed is not None:
            self._avoid |= {failed.url}
        self._count_hedge("lost")
        self._leave_place()

    # the end

    def end(self, *, is_answered: bool) -> None:
        """An answer goes to the client, or there will be none."""
        self._cancel_timers()
        hedge, self._hedge = self._hedge, None
        if hedge is not None:
            hedge.drop()
        self._count_hedge("won" if is_answered and self._is_hedge_ahead else "lost")
        self._leave_place()

    # looking and counting

    def _denial(self, reason: str) -> str | None:
        exchange = self._exchange
        return self._pool.retries.denial(
            reason,
            self._count,
            may_repeat=exchange.may_repeat,
            held_bytes=exchange.held_bytes if exchange.held else None,
        )

    @property
    def _pool(self) -> BackendPool:
        variant = self._exchange.variant
        assert variant is not None  # noqa: S101 - attempts are made on a variant
        return variant.pool

    def _take_place(self, pool: BackendPool) -> bool:
        """Have a place in the budget of `pool`, if one is left."""
        if self._place is None:
            in_flight = 1 + len(pool.pending) + sum(item.in_flight for item in pool.endpoints)
            if pool.retries.take(in_flight):
                self._place = pool.retries
        return self._place is not None

    def _leave_place(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            place.give_back()

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _count_hedge(self, outcome: str) -> None:
        if self._is_hedged:
            self._is_hedged = False
            self._tally("pointsman_hedges_total", outcome)

    def _tally(self, metric: str, label: str) -> None:
        self._exchange.worker.stats.counters[metric, self._pool.name, label] += 1
