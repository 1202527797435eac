"""What the demo's users saw, counted. Pure: no clock, no I/O; the view and the checks read it.

1. A user of a sticky route must always meet the same variant; a move is a violation, unless the
   weight of the variant moved to was raised before (`Stickiness.permit`).
2. Shares are those of a route's last `window` answers, because weights change during the demo.
"""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

_LATENCIES_KEPT: Final = 2000


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered request, as the user saw it."""

    route: str
    user: str
    variant: str
    is_correct: bool
    latency_s: float


class Stickiness:
    """Which variant each user meets on each sticky route."""

    def __init__(self) -> None:
        self._variants: dict[tuple[str, str], str] = {}
        self._permitted: set[tuple[str, str]] = set()
        self.returns = 0
        """Answers to users who had been on the route before."""
        self.moves = 0
        """Of these, to another variant than before, permitted."""
        self.violations = 0
        """Of these, to another variant than before, not permitted."""

    def permit(self, route: str, variant: str) -> None:
        """From now on users of `route` may move to `variant` (never away from it)."""
        self._permitted.add((route, variant))

    def observe(self, route: str, user: str, variant: str) -> None:
        """Count one answer. Answers to one user must come in the order of the requests."""
        before = self._variants.get((route, user))
        self._variants[route, user] = variant
        if before is None:
            return
        self.returns += 1
        if variant == before:
            return
        if (route, variant) in self._permitted:
            self.moves += 1
        else:
            self.violations += 1


@dataclass(slots=True)
class VariantTally:
    """What one variant of one route did. Latencies (s) are those of the last answers."""

    requests: int = 0
    correct: int = 0
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES_KEPT))

    def latency_s(self, quantile: float) -> float:
        """The sample quantile (nearest rank), 0 without samples. O(n log n)."""
        ordered = sorted(self.latencies_s)
        return ordered[min(int(quantile * len(ordered)), len(ordered) - 1)] if ordered else 0.0


class Tally:
    """Everything the users saw. `sticky` names the routes where users keep their variant."""

    def __init__(self, sticky: Iterable[str], window: int) -> None:
        self._sticky = frozenset(sticky)
        self._window = window
        self._variants: dict[tuple[str, str], VariantTally] = {}
        self._recent: dict[str, deque[str]] = {}
        self.stickiness = Stickiness()
        self.failures: Counter[str] = Counter()
        """Reason -> failed requests."""

    def answered(self, answer: Answer) -> None:
        """Count an answer."""
        variant = self._variants.setdefault((answer.route, answer.variant), VariantTally())
        variant.requests += 1
        variant.correct += answer.is_correct
        variant.latencies_s.append(answer.latency_s)
        recent = self._recent.setdefault(answer.route, deque(maxlen=self._window))
        recent.append(answer.variant)
        if answer.route in self._sticky:
            self.stickiness.observe(answer.route, answer.user, answer.variant)

    def failed(self, reason: str) -> None:
        """Count a request that got no answer, or a wrong kind of one."""
        self.failures[reason] += 1

    def weights_changed(self, route: str) -> None:
        """Shares of `route` count from here."""
        self._recent.pop(route, None)

    def variant(self, route: str, variant: str) -> VariantTally:
        """What `variant` did on `route`; all zero when it never answered."""
        return self._variants.get((route, variant), VariantTally())

    def recent(self, route: str) -> int:
        """How many answers the shares of `route` are taken from."""
        return len(self._recent.get(route, ()))

    def share(self, route: str, variant: str) -> float:
        """The share, 0..1, of the recent answers on `route` that came from `variant`."""
        recent = self._recent.get(route)
        return recent.count(variant) / len(recent) if recent else 0.0

    @property
    def requests(self) -> int:
        """Answered and failed."""
        return sum(each.requests for each in self._variants.values()) + self.failures.total()
