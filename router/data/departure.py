"""How a worker leaves: when told, or when control is gone, and with what patience.

Owns the order of the end; must not know what connections and exchanges do meanwhile. Strategy:

1. From the first step on `Worker.is_draining` holds: readiness fails, answers end their connection.
2. Accepting stops after `pre_stop_s` (see `acceptor.py`).
3. A client between requests is closed when it has been so for a while, for it is about to send
   nothing. One that was just accepted, or just answered, is waited for a moment: it may not know
   yet that this is the end.
4. With a successor all that has time: whoever is idle may stay until the deadline.
5. The worker ends with its last connection, or at the deadline.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from router import logs
from router.handover import Holder, address_of
from router.messages import Drain

if TYPE_CHECKING:
    from router.data.worker import Worker

_BUSY_S: Final = 1.0
"""A client that sent its last request less than this ago, or came, is thought to send another."""
_GRACE_S: Final = 0.25
"""How long the former is waited for."""
_LOOK_S: Final = 0.1

_log = logging.getLogger("router.data")


class Departure:
    """The end of one worker, from the first reason for it on."""

    def __init__(self, worker: "Worker") -> None:
        self.ended: asyncio.Future[None] = worker.loop.create_future()
        self._worker = worker
        self._has_stopped_accepting = False
        self._is_in_a_hurry = False
        self._holder: Holder | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def start(self, question: Drain) -> None:
        """Readiness fails now; accepting stops after `pre_stop_s`; all ends `timeout_s` after.

        Asked again, without a successor: what was patience ends.
        """
        if not self._worker.is_draining:
            self._worker.is_draining = True
            # first of all: whatever fails in what follows, the end comes
            self._end_within(question.pre_stop_s + question.timeout_s)
            self._later("pre_stop", question.pre_stop_s, lambda: self._stop_accepting(question))
        elif not question.has_successor and self._has_stopped_accepting:
            self._hurry(question.timeout_s)

    def on_orphaned(self) -> None:
        """Control is gone: serve on with the last snapshot, then leave."""
        worker = self._worker
        if not worker.is_serving:
            self.end()
        elif not (worker.is_draining or self.ended.done()):
            config = worker.snapshot.table.config
            logs.event(
                _log,
                "control_lost",
                severity=logging.WARNING,
                serving_on_s=config.orphan_timeout,
            )
            listener = worker.acceptor.listener
            self._holder = Holder(address_of(listener), lambda: [listener], self._on_successor)
            self._later("orphan", config.orphan_timeout, self.leave)
            try:
                self._holder.open()
            except OSError as error:  # no file is left for it: no successor will find us
                logs.event(_log, "no_handover", severity=logging.WARNING, reason=str(error))

    def _on_successor(self) -> None:
        """A new control's workers serve."""
        logs.event(_log, "successor_ready")
        self.leave(is_urgent=False)

    def leave(self, is_urgent: bool = True) -> None:
        """Drain for a reason of our own, or end when there is nothing to drain."""
        if not self._worker.is_serving:
            self.end()
            return
        timeout_s = self._worker.snapshot.table.config.drain_timeout
        # control accepts from the same socket, in a replacement; without it, only who took it does
        has_successor = self._holder is None or self._holder.has_given
        self.start(Drain(0.0, timeout_s, has_successor))
        if is_urgent:
            self._hurry(timeout_s)

    def _stop_accepting(self, question: Drain) -> None:
        self._worker.acceptor.stop(question.has_successor, self._on_stopped)
        if not question.has_successor:
            self._hurry(question.timeout_s)

    def _hurry(self, timeout_s: float) -> None:
        if self._is_in_a_hurry:
            return
        self._is_in_a_hurry = True
        self._end_within(timeout_s)
        self._worker.clients.close_idle(_BUSY_S, _BUSY_S)
        self._later("idle", _GRACE_S, self._close_idle)
        self._later("handshakes", _GRACE_S + _BUSY_S, self._worker.handshakes.abandon)

    def _close_idle(self) -> None:
        self._worker.clients.close_idle(_GRACE_S, _BUSY_S)
        self._later("idle", _LOOK_S, self._close_idle)

    def _on_stopped(self) -> None:
        self._has_stopped_accepting = True
        self.on_connection_lost()

    def on_connection_lost(self) -> None:
        """A client's connection is gone: perhaps the last."""
        worker = self._worker
        if self._has_stopped_accepting and not (
            worker.clients.connections or worker.handshakes.in_progress
        ):
            self.end()

    def end(self) -> None:
        """Leave now, with whatever is still in flight."""
        if not self.ended.done():
            self.ended.set_result(None)

    def close(self) -> None:
        """Release what the end itself holds."""
        for timer in self._timers.values():
            timer.cancel()
        if self._holder is not None:
            self._holder.close()
        self._worker.acceptor.close()

    def _end_within(self, delay_s: float) -> None:
        self._worker.holding.end_within(delay_s)
        earlier = self._timers.pop("deadline", None)
        if earlier is not None:
            earlier.cancel()
        self._timers["deadline"] = self._worker.loop.call_later(delay_s, self.end)

    def _later(self, name: str, delay_s: float, action: Callable[[], object]) -> None:
        earlier = self._timers.pop(name, None)
        if earlier is not None:
            earlier.cancel()
        if delay_s > 0:
            self._timers[name] = self._worker.loop.call_later(delay_s, action)
        else:
            action()
