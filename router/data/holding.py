"""Requests that wait because their route is held, while its versions are being exchanged.

A `Line` is a route's, through any number of snapshots; `Holding` has the lines of one worker.

1. A request enters before it is assigned, and begins anew when it leaves: what is in force then
   decides, the table included.
2. Bounded in number, bytes and time (`HoldBounds`, this worker's share): beyond that 503.
3. Of a body only what came with the head is here, for the client is not read on. The loop does not
   see then when it leaves, so that is looked for (`LOOK_S`).
4. They go in order of arrival, `BURST` at a time, and other events in between. Who arrives while
   they go does not wait behind them.
5. A worker that leaves lets nobody wait for more than half of the time it has: so that what is
   released can still be answered, and what is not is told so.
"""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice
from math import ceil, inf
from time import monotonic
from typing import TYPE_CHECKING, Final

from router.data import kernel
from router.errors import HELD_TOO_LONG, HELD_TOO_MANY, INTERNAL
from router.policies.base import HoldBounds

if TYPE_CHECKING:
    from router.data.asking import Asking
    from router.data.worker import Worker

BURST: Final = 32
"""Requests begun, or refused, before other events get their turn: about 2 ms."""
LOOK_S: Final = 0.1
"""A client that left is noticed, and a time that is over kept, to within this much."""


def share_of(bounds: HoldBounds | None, workers: int) -> HoldBounds | None:
    """What one of so many workers may hold. Connections, not requests, are spread over workers."""
    if bounds is None:
        return None
    return HoldBounds(ceil(bounds.requests / workers), ceil(bounds.bytes / workers), bounds.for_s)


@dataclass(slots=True)
class _Place:
    """What one waiting request is begun with, and until when it waits."""

    payload: bytes
    complete: bool
    size_bytes: int
    since_s: float
    until_s: float


class Line:
    """The waiting requests of one route. Implements `wheel.Timed`."""

    def __init__(self, route: str, worker: "Worker") -> None:
        self.route = route
        self.deadline = inf
        self.slot_s = inf
        self.latest_s = inf
        """Nobody waits for longer."""
        self._worker = worker
        self._places: dict[Asking, _Place] = {}
        """In order of arrival."""
        self._bytes = 0
        self._is_releasing = False

    def __repr__(self) -> str:
        return f"<Line {self.route} [{len(self._places)} waiting, {self._bytes} bytes]>"

    def __len__(self) -> int:
        return len(self._places)

    # coming

    def enter(
        self, exchange: "Asking", payload: bytes, complete: bool, size_bytes: int, to: HoldBounds
    ) -> None:
        """`exchange` waits, unless too many do. `payload` is what came of its body."""
        waiting = len(self._places)
        detail = ""
        if waiting >= to.requests:
            detail = f"{waiting} requests wait while {self.route} changes its version"
        elif self._bytes + size_bytes > to.bytes:
            detail = f"requests of {self._bytes} bytes wait while {self.route} changes its version"
        if detail:
            self._count("refused")
            exchange.refuse(HELD_TOO_MANY, detail)
            return
        now = monotonic()
        until_s = min(now + to.for_s, self.latest_s)
        self._places[exchange] = _Place(payload, complete, size_bytes, now, until_s)
        self._bytes += size_bytes
        exchange.line = self
        if not complete:
            exchange.downstream.pause_reading()
        if not waiting:
            self._worker.wheel.arm(self, now + LOOK_S)

    def add(self, exchange: "Asking", payload: bytes, complete: bool) -> None:
        """More of its body came, which was on its way when the reading stopped."""
        place = self._places[exchange]
        place.payload += payload
        place.complete = complete
        place.size_bytes += len(payload)
        self._bytes += len(payload)

    # going

    def leave(self, exchange: "Asking") -> None:
        """Its client left."""
        self._take_out(exchange)
        self._count("left")

    def hold(self) -> None:
        """Who is still here stays."""
        self._is_releasing = False

    def release(self) -> None:
        """All go, in order."""
        if self._places and not self._is_releasing:
            self._is_releasing = True
            self._let_go()

    def _let_go(self) -> None:
        if not self._is_releasing:
            return
        for exchange in list(islice(self._places, BURST)):
            place = self._take_out(exchange)
            self._count("released")
            exchange.held_s += monotonic() - place.since_s
            try:
                exchange.start(place.payload, place.complete)
            except Exception as error:
                # a bug of ours ends this request, and is told; nobody else notices
                self._worker.outbox.report_bug(error)
                if not exchange.is_finished:
                    exchange.refuse(INTERNAL, "the router failed on this request")
        if self._places:
            self._worker.loop.call_soon(self._let_go)
        else:
            self._is_releasing = False

    def on_deadline(self) -> None:
        """Look for those whose time is over, and for those whose client left."""
        self._refuse_overdue()
        for exchange in list(self._places):
            transport = exchange.downstream.transport
            if not transport.is_reading() and kernel.has_left(transport):
                transport.abort()
        if self._places:
            self._worker.wheel.arm(self, monotonic() + LOOK_S)

    def _refuse_overdue(self) -> None:
        now = monotonic()
        over = [item for item, place in self._places.items() if place.until_s <= now]
        for exchange in over[:BURST]:
            waited_s = now - self._take_out(exchange).since_s
            self._count("refused")
            detail = f"it waited for {waited_s:.1f} s while {self.route} changes its version"
            exchange.refuse(HELD_TOO_LONG, detail)
        if len(over) > BURST:
            self._worker.loop.call_soon(self._refuse_overdue)

    def end_by(self, latest_s: float) -> None:
        """Nobody waits past that time."""
        self.latest_s = latest_s
        for place in self._places.values():
            place.until_s = min(place.until_s, latest_s)

    def _take_out(self, exchange: "Asking") -> _Place:
        place = self._places.pop(exchange)
        self._bytes -= place.size_bytes
        exchange.line = None
        if not self._places:
            self._worker.wheel.drop(self)
        return place

    def _count(self, outcome: str) -> None:
        self._worker.stats.counters["pointsman_held_total", self.route, outcome] += 1


class Holding:
    """The lines of one worker."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._lines: dict[str, Line] = {}
        self._latest_s = inf

    def __len__(self) -> int:
        """Requests that wait."""
        return sum(len(line) for line in self._lines.values())

    def line(self, route: str) -> Line:
        """The line of that route, the same object each time."""
        line = self._lines.get(route)
        if line is None:
            line = self._lines[route] = Line(route, self._worker)
            line.latest_s = self._latest_s
        return line

    def release_but(self, held: Collection[str]) -> None:
        """Only these routes are held from now on."""
        for route, line in self._lines.items():
            if route in held:
                line.hold()
            else:
                line.release()

    def end_within(self, delay_s: float) -> None:
        """The worker ends after so long."""
        self._latest_s = monotonic() + delay_s / 2
        for line in self._lines.values():
            line.end_by(self._latest_s)
