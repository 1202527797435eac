"""What checks are judged by and what they say: terms, tallies, findings, figures in words. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from router.rollouts.state import Outcome
from router.units import format_share


@dataclass(frozen=True, slots=True)
class Terms:
    """What conclusions take. `alpha`: what one check may take of all mistaken rollbacks."""

    alpha: float
    confidence: float
    promote_confidence: float
    promote_ratio: float
    negligible: float

    @property
    def fails_at(self) -> float:
        """The e-value that shows a failure."""
        return 1.0 / self.alpha

    @property
    def passes_at(self) -> float:
        """The e-value that shows a pass."""
        return 1.0 / (1.0 - self.promote_confidence)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check says.

    `words` are for people. `against` and `in_favour` are e-values of the new variant failing and
    passing; `old`, `new` are rates, `ratio` is theirs. None: not known.
    """

    outcome: Outcome
    words: str
    against: float = 1.0
    in_favour: float = 1.0
    old: float | None = None
    new: float | None = None
    ratio: float | None = None


@dataclass(slots=True)
class Tally:
    """Requests `n` with events `k` of the new variant and of the old one.

    `over` and `under` are the sums of the ratio of Mantel and Haenszel ("Statistical aspects of
    the analysis of data from retrospective studies of disease", Journal of the National Cancer
    Institute 22, 1959), which weights that change do not mislead.
    """

    new_n: int = 0
    new_k: int = 0
    old_n: int = 0
    old_k: int = 0
    over: float = 0.0
    under: float = 0.0

    def add(self, na: int, a: int, nb: int, b: int) -> None:
        """Count a block: the old variant's requests and events, and the new one's."""
        self.old_n += na
        self.old_k += a
        self.new_n += nb
        self.new_k += b
        if na and nb:
            self.over += b * na / (na + nb)
            self.under += a * nb / (na + nb)

    @property
    def old(self) -> float | None:
        """The old variant's rate."""
        return self.old_k / self.old_n if self.old_n else None

    @property
    def new(self) -> float | None:
        """The new variant's rate."""
        return self.new_k / self.new_n if self.new_n else None

    @property
    def ratio(self) -> float | None:
        """New rate / old rate while both answered; None without events of the old variant."""
        return self.over / self.under if self.under else None

    def dump(self) -> list[float]:
        return [self.new_n, self.new_k, self.old_n, self.old_k, self.over, self.under]

    @classmethod
    def restored(cls, dumped: Sequence[Any]) -> "Tally":
        new_n, new_k, old_n, old_k, over, under = dumped
        return cls(int(new_n), int(new_k), int(old_n), int(old_k), float(over), float(under))


def rate_of(k: float, n: float) -> str:
    """`5.2 % of 1,240`: one decimal, more where a small rate needs them for two digits."""
    percent = round(100.0 * k / n, 6) if n else 0.0
    decimals = 1 if percent >= 1 or not percent else min(4, 1 - math.floor(math.log10(percent)))
    return f"{percent:.{decimals}f} % of {n:,.0f}"


def ratio_of(tally: Tally) -> str:
    """`x5.1, `, or nothing when there is no ratio."""
    ratio = tally.ratio
    if ratio is None:
        return ""
    return f"x{ratio:.1f}, " if ratio >= 1 else f"x{ratio:.2f}, "


def percent(share: float) -> str:
    """`99 %`."""
    return format_share(share).replace("%", " %")
