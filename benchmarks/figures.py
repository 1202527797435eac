"""Quantiles, medians with their range, and tables. Pure."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


def quantile(ascending: Sequence[float], q: float) -> float:
    """The nearest-rank quantile: the smallest value that at least the share `q` does not exceed.

    Raises:
        ValueError: there are no values, or `q` is outside 0 < q <= 1.
    """
    if not ascending or not 0 < q <= 1:
        raise ValueError(f"no quantile {q} of {len(ascending)} values")
    return ascending[math.ceil(q * len(ascending)) - 1]


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with the smallest and largest of the runs."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Raises statistics.StatisticsError when there are no values."""
        ordered = sorted(values)
        return cls(statistics.median(ordered), ordered[0], ordered[-1])

    def show(self, form: Callable[[float], str]) -> str:
        """`12.1 (11.9…12.4)`, each number by `form`."""
        return f"{form(self.median)} ({form(self.low)}…{form(self.high)})"


def paired_ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours / theirs, round by round: what disturbs a round disturbs both sides of it."""
    return Spread.of(a / b for a, b in zip(ours, theirs, strict=True))


def short(value: float) -> str:
    """Three significant digits, whole from 100 up, thousands as `12.3k`."""
    if value >= 10_000:
        return f"{value / 1000:.3g}k" if value < 999_500 else f"{value / 1000:.0f}k"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns; the first is left-aligned, the others right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *others]) + " |"

    rules = ["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), "|" + "|".join(rules) + "|", *map(line, rows)])
