"""Sums of a KPI: the one value that every statistic of an experiment works on.

A sum is about units where the route is sticky (one value a unit: what the unit brought in all), and
about requests where it is not. Sums add up, so workers, routers and stretches of time merge by
adding, in any order.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

_ROUNDING: Final = 1e-6
"""What adding floats may have left, relative to the sum of squares."""


@dataclass(frozen=True, slots=True)
class Sums:
    """`n` values, their `total` and the total of their `squares`.

    Of a lognormal KPI these are the values' natural logarithms. The variance is a difference of
    two totals: it loses digits where the mean is over a thousand times the standard deviation.
    """

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.n + other.n, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        """0 of no values."""
        return self.total / self.n if self.n else 0.0

    @property
    def variance(self) -> float:
        """Of one value, unbiased; 0 of fewer than two."""
        if self.n < 2:
            return 0.0
        return max(0.0, self.squares - self.total * self.total / self.n) / (self.n - 1)

    def dump(self) -> list[Any]:
        """As JSON-able data: `[n, total, squares]`."""
        return [self.n, self.total, self.squares]

    @classmethod
    def restore(cls, dumped: Sequence[Any]) -> "Sums":
        """The inverse of `dump`.

        Raises:
            ValueError: it is not a dump, or no values have these sums.
        """
        try:
            n, total, squares = dumped
            sums = cls(int(n), float(total), float(squares))
        except (TypeError, OverflowError) as error:
            raise ValueError(f"not a dump of sums: {error}") from error
        is_finite = math.isfinite(sums.total) and math.isfinite(sums.squares)
        # Cauchy and Schwarz: the squared total is at most n times the total of squares
        slack = _ROUNDING * (1.0 + sums.squares)
        if not (is_finite and sums.n >= 0 and sums.squares >= 0.0) or (
            sums.total * sums.total > sums.n * (sums.squares + slack)
        ):
            raise ValueError(f"no values have the sums {list(dumped)}")
        return sums


def added(many: Iterable[Sums]) -> Sums:
    """All of them as one."""
    n, total, squares = 0, 0.0, 0.0
    for sums in many:
        n += sums.n
        total += sums.total
        squares += sums.squares
    return Sums(n, total, squares)


@dataclass(frozen=True, slots=True, order=True)
class Stratum:
    """Where one set of weights held: a cell, in one version of its weights.

    `cell` is `""` for the whole route. `version` grows whenever the weights of the cell change.
    """

    cell: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Arm:
    """A variant in a stratum: what results are keyed by."""

    variant: str
    stratum: Stratum = Stratum()
