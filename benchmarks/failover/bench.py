"""What every scenario is given, and the arithmetic over outcomes that several of them share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.failover import load
from benchmarks.failover.load import Load, Outcome
from benchmarks.failover.stand import Stand, stand
from benchmarks.figures import quantile
from benchmarks.machine import Cores
from benchmarks.peers import POINTSMAN, Peer

RATE: Final = 1300
"""Requests a second, half of them POSTs."""
WINDOW_S: Final = 0.25
_STEADY_FLOOR_S: Final = 0.005
"""A p99 below this is steady, whatever it was before: two cores shared by all are not quieter."""


@dataclass
class Bench:
    """One run of all scenarios. `is_quick`: a third of the time, only a look."""

    cores: Cores
    is_quick: bool
    posts: dict[str, int] = field(default_factory=dict)
    """POSTs sent, by proxy."""
    twice: dict[str, int] = field(default_factory=dict)
    """POSTs that some endpoint got more than once."""
    late_s: list[float] = field(default_factory=list)
    """How late each load was at p99: what it says of latencies is no better than that."""

    def seconds(self, whole: float) -> float:
        return whole / 3 if self.is_quick else whole

    def count(self, whole: int) -> int:
        return whole // 10 if self.is_quick else whole

    def stand(
        self, peer: Peer = POINTSMAN, change: Callable[[dict[str, Any]], object] = lambda c: None
    ) -> Any:
        """See `stand.stand`."""
        return stand(self.cores.proxy, peer, change)

    def account(self, it: Stand, done: Load) -> None:
        """Take in the POSTs of a load that has ended. Once for a stand."""
        name = it.peer.name
        if done.late_s:
            self.late_s.append(quantile(sorted(done.late_s), 0.99))
        sent = sum(outcome.is_post for outcome in done.outcomes)
        self.posts[name] = self.posts.get(name, 0) + sent
        self.twice[name] = self.twice.get(name, 0) + load.twice(it.delivered())


def bad(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that were not answered 200 by an endpoint."""
    return [outcome for outcome in outcomes if not outcome.is_good]


def p99_s(outcomes: Sequence[Outcome]) -> float:
    """Of the good ones; 0 when there are none."""
    took = sorted(outcome.took_s for outcome in outcomes if outcome.is_good)
    return quantile(took, 0.99) if took else 0.0


def between(outcomes: Sequence[Outcome], start_s: float, end_s: float) -> list[Outcome]:
    """Those due in that time."""
    return [outcome for outcome in outcomes if start_s <= outcome.due_s < end_s]


def steady_after_s(outcomes: Sequence[Outcome], fault_s: float, end_s: float) -> float:
    """Seconds from the fault until p99 is again at most twice what it was before, for a second.

    The time to `end_s` when it never is.
    """
    bound_s = max(_STEADY_FLOOR_S, 2 * p99_s([o for o in outcomes if o.due_s < fault_s]))
    in_a_row, at_s = 0, fault_s
    while at_s + WINDOW_S <= end_s:
        window = between(outcomes, at_s, at_s + WINDOW_S)
        at_s += WINDOW_S
        is_steady = not bad(window) and p99_s(window) <= bound_s
        in_a_row = in_a_row + 1 if is_steady else 0
        if in_a_row * WINDOW_S >= 1:
            return at_s - fault_s - 1
    return end_s - fault_s
