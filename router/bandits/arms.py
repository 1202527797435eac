"""The words of the bandits: sums of rewards, and which way is better.

Rewards are added up as they come. An algorithm sees them through `Reward.view`, which turns them
so that larger is better and, where bounds are known, so that they lie in 0..1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

ROUTE: Final = ""
"""The cell of the whole route; every reward counts there as well."""


@dataclass(slots=True)  # frozen ones take thrice as long to make, and each reward makes two
class Pulls:
    """`n` rewards (not whole where old ones fade), their `total` and the total of their `squares`.

    Of a lognormal reward the last two are of natural logarithms. Never changed once made.
    """

    n: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    def __add__(self, other: "Pulls") -> "Pulls":
        return Pulls(self.n + other.n, self.total + other.total, self.squares + other.squares)

    def __mul__(self, factor: float) -> "Pulls":
        return Pulls(self.n * factor, self.total * factor, self.squares * factor)

    @property
    def mean(self) -> float:
        """0 of no rewards."""
        return self.total / self.n if self.n else 0.0

    @property
    def deviations(self) -> float:
        """Sum of squared deviations from the mean."""
        return max(0.0, self.squares - self.total * self.mean)


class Kind(StrEnum):
    """What values a reward has."""

    BINARY = "binary"
    """0 or 1, or anything between."""
    NUMERIC = "numeric"
    LOGNORMAL = "lognormal"
    """Above 0; sums are of logarithms."""


@dataclass(frozen=True, slots=True)
class Reward:
    """What is observed, and which way is better. `bounds` are those of a numeric reward."""

    kind: Kind = Kind.BINARY
    is_minimised: bool = False
    bounds: tuple[float, float] | None = None

    @property
    def tilt(self) -> float:
        """Weight of the variance in what makes an arm good, in the view.

        A lognormal reward with logarithms of mean m and variance v has the mean exp(m + v / 2).
        """
        if self.kind is not Kind.LOGNORMAL:
            return 0.0
        return -0.5 if self.is_minimised else 0.5

    def view(self, pulls: Pulls) -> Pulls:
        """Turned so that larger is better; in 0..1 if binary, or numeric with bounds."""
        n, total, squares = pulls.n, pulls.total, pulls.squares
        if self.kind is Kind.NUMERIC and self.bounds is not None:
            low, high = self.bounds
            width = high - low
            squares = (squares - 2.0 * low * total + n * low * low) / (width * width)
            total = (total - n * low) / width
        elif self.kind is not Kind.BINARY:
            return Pulls(n, -total, squares) if self.is_minimised else pulls
        if self.is_minimised:
            return Pulls(n, n - total, n - 2.0 * total + squares)
        return Pulls(n, total, squares)

    def score(self, view: Pulls) -> float:
        """What the arm's goodness is estimated to be, in the view; 0 of no rewards."""
        return view.mean + (self.tilt * view.deviations / view.n if view.n else 0.0)


Algorithm = Callable[[Sequence[Pulls]], list[float]]
"""Views of the arms of one cell -> their shares, which sum to 1. Deterministic; equal arms get
equal shares, and the order of the arms does not matter. Never raises on sums that can be."""


def evenly(flags: Sequence[bool]) -> list[float]:
    """1 divided equally among those that are true; at least one is."""
    share = 1.0 / sum(flags)
    return [share if flag else 0.0 for flag in flags]
