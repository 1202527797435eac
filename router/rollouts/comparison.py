"""One rate of the new variant, judged: beside the old one's, or against a fixed bound. Pure.

1. While both variants answer, `RateRatioE` compares them second by second.
2. While only the new one does, its rate is tested against what the old one's was before.
3. A rate that is shown to be negligible needs no comparison.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from router.rollouts.evidence import Dispersion, Pace, RateE, RateRatioE, wilson
from router.rollouts.findings import Finding, Tally, Terms, percent, rate_of, ratio_of
from router.rollouts.state import Outcome

BLOCK_MIN_REQUESTS: Final = 5
"""Seconds are taken together until each variant has so many requests: with one request of one of
them a second says nothing of a ratio."""
BLOCK_MAX_SECONDS: Final = 60
"""Unless it takes longer than this."""
QUIET_SECONDS: Final = 10
"""So long without a request of the old variant, and there is nothing left to compare with."""
HISTORY_MIN_REQUESTS: Final = 200
"""Of the old variant, before its past says anything of its rate."""
_SUSPICION: Final = 2.0
"""An e-value against the new variant from which a pass waits until that is settled."""
_RATE_MAX: Final = 0.999
"""A rate that is tested leaves room on both sides."""


class Judged(Protocol):
    """A rate under judgement."""

    def observe(self, na: int, a: int, nb: int, b: int) -> None:
        """Count a second: the old variant's requests and events, and the new one's."""
        ...

    def finding(self) -> Finding:
        """What is known by now."""
        ...

    def dump(self) -> dict[str, Any]:
        """Everything that is known, as JSON-able data."""
        ...

    def restore(self, dumped: Mapping[str, Any]) -> None:
        """Take over a `dump`."""
        ...


class _Memory:
    """What both kinds of check keep: tallies, dispersion, pace.

    `whole` is of the rollout, `recent` since the evidence against the new variant began to grow:
    that is what explains a failure.
    """

    def __init__(self) -> None:
        self.dispersion, self.pace = Dispersion(), Pace()
        self.whole, self.recent = Tally(), Tally()

    def add(self, block: tuple[int, int, int, int], against: float) -> None:
        if block[2] == 0:
            return  # nothing of the new variant to put beside it
        self.whole.add(*block)
        if against < 1.0:
            self.recent = Tally()
        else:
            self.recent.add(*block)

    def dump(self) -> dict[str, Any]:
        spread, pace = self.dispersion, self.pace
        return {
            "dispersion": [spread.blocks, spread.n, spread.k, spread.squares],
            "pace": [pace.k, pace.n],
            "whole": self.whole.dump(),
            "recent": self.recent.dump(),
        }

    def restore(self, dumped: Mapping[str, Any]) -> None:
        self.dispersion = Dispersion(*map(float, dumped["dispersion"]))
        self.pace = Pace(*map(float, dumped["pace"]))
        self.whole = Tally.restored(dumped["whole"])
        self.recent = Tally.restored(dumped["recent"])


class _Fixed:
    """The new variant's rate against two numbers: a failure is above `high`, a pass below `low`.

    `low` may be 0: then nothing passes.
    """

    def __init__(self, high: float, low: float, terms: Terms) -> None:
        self.high, self.low = min(high, _RATE_MAX), min(low, _RATE_MAX)
        self._above = RateE(self.high, is_above=True, enough=terms.fails_at)
        self._below = (
            RateE(self.low, is_above=False, enough=terms.passes_at) if self.low > 0 else None
        )

    @property
    def value(self) -> float:
        """The e-value against the new variant."""
        return self._above.value

    @property
    def in_favour(self) -> float:
        return self._below.value if self._below else 0.0

    def observe(self, n: int, k: int, memory: _Memory, dispersion: float) -> None:
        most = max(memory.pace.most(n), self.high * n)
        memory.pace.observe(n, k)
        self._above.observe(n, min(k, most), dispersion)
        if self._below:
            self._below.observe(n, k, dispersion)

    def dump(self) -> list[Any]:
        below = self._below.dump() if self._below else None
        return [self.high, self.low, self._above.dump(), below]

    @classmethod
    def restored(cls, dumped: Any, terms: Terms) -> "_Fixed":
        high, low, above, below = dumped
        fixed = cls(float(high), float(low), terms)
        fixed._above.restore(above)
        if fixed._below:
            fixed._below.restore(below)
        return fixed


class Absolute:
    """The new variant's rate may be `allowed`, whatever the old one's is."""

    def __init__(self, allowed: float, terms: Terms) -> None:
        self._terms, self._memory = terms, _Memory()
        self._fixed = _Fixed(allowed, allowed, terms)

    def observe(self, na: int, a: int, nb: int, b: int) -> None:
        dispersion = self._memory.dispersion.value
        if nb:
            self._fixed.observe(nb, b, self._memory, dispersion)
        self._memory.add((na, a, nb, b), self._fixed.value)
        self._memory.dispersion.observe(na, a)

    def finding(self) -> Finding:
        terms, fixed = self._terms, self._fixed
        outcome, tally, end = _conclusion(
            terms,
            self._memory,
            (fixed.value, fixed.in_favour),
            f"below {percent(fixed.high)}",
        )
        words = f"{rate_of(tally.new_k, tally.new_n)} (allowed {percent(fixed.high)}): {end}"
        return _found(outcome, words, (fixed.value, fixed.in_favour), self._memory.whole)

    def dump(self) -> dict[str, Any]:
        return {"fixed": self._fixed.dump(), **self._memory.dump()}

    def restore(self, dumped: Mapping[str, Any]) -> None:
        self._fixed = _Fixed.restored(dumped["fixed"], self._terms)
        self._memory.restore(dumped)


class Relative:
    """The new variant's rate may be `allowed` times the old one's at the same time."""

    def __init__(self, allowed: float, terms: Terms) -> None:
        self._allowed, self._terms, self._memory = allowed, terms, _Memory()
        self._above = RateRatioE(allowed, is_above=True, enough=terms.fails_at)
        self._below = RateRatioE(terms.promote_ratio, is_above=False, enough=terms.passes_at)
        self._small = RateE(terms.negligible or _RATE_MAX, is_above=False, enough=terms.passes_at)
        self._past: _Fixed | None = None
        self._block = (0, 0, 0, 0)
        self._seconds = self._quiet = 0
        self._divisor = 1.0

    def observe(self, na: int, a: int, nb: int, b: int) -> None:
        if self._seconds == 0:
            self._divisor = self._memory.dispersion.value  # it must not know what it divides
        na_, a_, nb_, b_ = self._block
        self._block = (na_ + na, a_ + a, nb_ + nb, b_ + b)
        self._seconds += 1
        self._quiet = 0 if na else self._quiet + 1
        if self._is_block():
            self._judge(*self._block)
            judge = self._past if self._past and self._block[0] == 0 else self._above
            self._memory.add(self._block, judge.value)
            self._block, self._seconds = (0, 0, 0, 0), 0
        self._memory.dispersion.observe(na, a)

    def _is_block(self) -> bool:
        na, _, nb, _ = self._block
        if self._seconds >= BLOCK_MAX_SECONDS:
            return True
        if nb == 0:
            return self._seconds >= QUIET_SECONDS
        has_old = na >= BLOCK_MIN_REQUESTS or self._quiet >= QUIET_SECONDS
        return has_old and nb >= BLOCK_MIN_REQUESTS

    def _judge(self, na: int, a: int, nb: int, b: int) -> None:
        memory, dispersion = self._memory, self._divisor
        if nb == 0:
            return
        self._small.observe(nb, b, dispersion)
        if na:
            most = memory.pace.most(na + nb)
            memory.pace.observe(na + nb, a + b)
            self._above.observe(na, a, nb, b, max(dispersion, (a + b) / most))
            self._below.observe(na, a, nb, b, dispersion)
            return
        if self._past is None and memory.dispersion.n >= HISTORY_MIN_REQUESTS:
            self._past = self._bounds(dispersion)
        if self._past:
            self._past.observe(nb, b, memory, dispersion)

    def _bounds(self, dispersion: float) -> _Fixed:
        """The limits of the old variant's rate, further from it the less is known, as bounds."""
        known, terms = self._memory.dispersion, self._terms
        n, k = known.n / dispersion, known.k / dispersion
        high = wilson(k, n, terms.confidence)[1] * self._allowed
        low = wilson(k, n, terms.promote_confidence)[0] * terms.promote_ratio
        return _Fixed(high, low, terms)

    @property
    def _against(self) -> float:
        return max(self._above.value, self._past.value if self._past else 0.0)

    @property
    def _in_favour(self) -> float:
        return max(self._below.value, self._past.in_favour if self._past else 0.0)

    def finding(self) -> Finding:
        terms, values = self._terms, (self._against, self._in_favour)
        if terms.negligible and self._small.value >= terms.passes_at:
            tally, values = self._memory.whole, (values[0], self._small.value)
            outcome = Outcome.PASS
            end = f"below {percent(terms.negligible)} with {_confidence(terms)}"
        else:
            outcome, tally, end = _conclusion(
                terms, self._memory, values, f"below x{terms.promote_ratio:g}"
            )
        found = _found(outcome, f"{self._figures(tally)}: {end}", values, self._memory.whole)
        known = self._memory.dispersion
        is_past = found.old is None and known.n > 0
        return replace(found, old=known.k / known.n) if is_past else found

    def _figures(self, tally: Tally) -> str:
        new, known = rate_of(tally.new_k, tally.new_n), self._memory.dispersion
        if self._past and self._quiet >= QUIET_SECONDS:
            before = rate_of(known.k, known.n)
            return f"{new} against {before} before (allowed x{self._allowed:g})"
        old = rate_of(tally.old_k, tally.old_n)
        return f"{new} against {old} ({ratio_of(tally)}allowed x{self._allowed:g})"

    def dump(self) -> dict[str, Any]:
        return {
            "above": self._above.dump(),
            "below": self._below.dump(),
            "small": self._small.dump(),
            "past": self._past.dump() if self._past else None,
            "block": [*self._block, self._seconds, self._quiet],
            "divisor": self._divisor,
            **self._memory.dump(),
        }

    def restore(self, dumped: Mapping[str, Any]) -> None:
        self._above.restore(dumped["above"])
        self._below.restore(dumped["below"])
        self._small.restore(dumped["small"])
        past = dumped["past"]
        self._past = _Fixed.restored(past, self._terms) if past else None
        na, a, nb, b, self._seconds, self._quiet = map(int, dumped["block"])
        self._block = (na, a, nb, b)
        self._divisor = float(dumped["divisor"])
        self._memory.restore(dumped)


def _conclusion(
    terms: Terms, memory: _Memory, values: tuple[float, float], passed: str
) -> tuple[Outcome, Tally, str]:
    """Outcome, the tally that explains it, and how it is put."""
    against, in_favour = values
    if against >= terms.fails_at:
        end = f"rolled back with confidence {percent(terms.confidence)}"
        return Outcome.FAIL, memory.recent, end
    if in_favour >= terms.passes_at and against < _SUSPICION:
        return Outcome.PASS, memory.whole, f"{passed} with {_confidence(terms)}"
    return Outcome.INCONCLUSIVE, memory.whole, "not enough evidence yet"


def _confidence(terms: Terms) -> str:
    return f"confidence {percent(terms.promote_confidence)}"


def _found(outcome: Outcome, words: str, values: tuple[float, float], tally: Tally) -> Finding:
    return Finding(outcome, words, *values, tally.old, tally.new, tally.ratio)
