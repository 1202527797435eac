"""A guard at work: judges the new variant by the blocks of measurements it is shown. Pure.

1. Every condition is a check on a rate: a bounded rate is one, a bounded quantile becomes one (how
   often a request is slower than the bound).
2. One failed check fails the guard. All must pass for it to pass.
3. The checks share the mistakes that `confidence` allows (Bonferroni), so that it is the guard's.
4. Time is counted in blocks, of about a second each. There is no clock.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from router.rollouts.bounds import Bound
from router.rollouts.comparison import Absolute, Judged, Relative
from router.rollouts.findings import Finding, Terms, rate_of
from router.rollouts.measured import (
    ERRORS,
    SKETCH_GROWTH,
    Block,
    Measured,
    Sketch,
    beyond,
    bucket_of,
    quantile,
    value_of,
)
from router.rollouts.options import SLOW_RATIO, Burst, Guard
from router.rollouts.state import Outcome, Verdict
from router.units import format_duration

VERSION: Final = 1
SLOW_MIN: Final = 20
"""The old variant's quantile is taken from so many requests that so many are beyond it,"""
QUANTILE_MIN_REQUESTS: Final = 200
"""and from at least so many,"""
QUANTILE_BLOCKS: Final = 60
"""and anew after so many seconds: what is slow changes with the load."""
_BURST_RATIO: Final = 2.0
_NOBODY: Final = Measured()


class Check(Protocol):
    """One condition."""

    def observe(self, old: Measured, new: Measured) -> None:
        """Count a block."""
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


class RateCheck:
    """A rate by its name."""

    def __init__(self, name: str, bound: Bound, terms: Terms) -> None:
        self._name = name
        self._judged: Judged = (Relative if bound.is_ratio else Absolute)(bound.value, terms)

    def observe(self, old: Measured, new: Measured) -> None:
        na, a = old.rates.get(self._name, (0, 0))
        nb, b = new.rates.get(self._name, (0, 0))
        self._judged.observe(na, a, nb, b)

    def finding(self) -> Finding:
        return self._judged.finding()

    def dump(self) -> dict[str, Any]:
        return self._judged.dump()

    def restore(self, dumped: Mapping[str, Any]) -> None:
        self._judged.restore(dumped)


class QuantileCheck:
    """A quantile of a distribution may be so long: so few requests may be slower than that."""

    def __init__(self, name: str, q: float, bound: Bound, terms: Terms) -> None:
        self._name, self._bound = name, bound
        self._limit = bucket_of(bound.value)
        self._judged = Absolute(round(1.0 - q, 6), terms)

    def observe(self, old: Measured, new: Measured) -> None:
        na, a = _slow(old.distributions.get(self._name), self._limit)
        nb, b = _slow(new.distributions.get(self._name), self._limit)
        self._judged.observe(na, a, nb, b)

    def finding(self) -> Finding:
        return _prefixed(f"above {self._bound}: ", self._judged.finding())

    def dump(self) -> dict[str, Any]:
        return self._judged.dump()

    def restore(self, dumped: Mapping[str, Any]) -> None:
        self._judged.restore(dumped)


class QuantileRatioCheck:
    """A quantile may be so many times the old variant's.

    With m the old variant's quantile, measured earlier, an old request is slow above m and a new
    one above ratio x m; then the rates of slow requests are compared. That is a fair test whatever
    m is, so an m that is outdated or off costs time, never correctness; and when both variants
    become slow together neither is to blame. The ratio is rounded to whole buckets of the sketch.
    """

    def __init__(self, name: str, q: float, bound: Bound, terms: Terms) -> None:
        self._name, self._q, self._bound = name, q, bound
        self._shift = round(math.log(bound.value) / SKETCH_GROWTH)
        self._enough = max(QUANTILE_MIN_REQUESTS, math.ceil(SLOW_MIN / (1.0 - q)))
        self._judged = Relative(SLOW_RATIO, terms)
        self._limit: int | None = None
        self._seen: Sketch = {}
        self._blocks = 0

    def observe(self, old: Measured, new: Measured) -> None:
        sketch = old.distributions.get(self._name, {})
        if self._limit is not None:
            na, a = _slow(sketch, self._limit)
            nb, b = _slow(new.distributions.get(self._name), self._limit + self._shift)
            self._judged.observe(na, a, nb, b)
        for bucket, n in sketch.items():
            self._seen[bucket] = self._seen.get(bucket, 0) + n
        self._blocks += 1
        if self._limit is None or self._blocks >= QUANTILE_BLOCKS:
            self._take()

    def _take(self) -> None:
        """Take the quantile of what was seen, if that is enough."""
        if sum(self._seen.values()) < self._enough:
            return
        found = quantile(self._seen, self._q)
        if found is not None:
            self._limit = bucket_of(found)
        self._seen, self._blocks = {}, 0

    def finding(self) -> Finding:
        if self._limit is None:
            n = sum(self._seen.values())
            words = f"{n:,} of {self._enough:,} requests of the old variant to compare with"
            return Finding(Outcome.INCONCLUSIVE, words)
        old, new = (_shown(value_of(self._limit + shift)) for shift in (0, self._shift))
        where = f"above {old}: " if old == new else f"above {new} against {old}: "
        return _prefixed(where, self._judged.finding())

    def dump(self) -> dict[str, Any]:
        seen = {str(bucket): n for bucket, n in self._seen.items()}
        limit = {"limit": self._limit, "seen": seen, "blocks": self._blocks}
        return {**limit, "judged": self._judged.dump()}

    def restore(self, dumped: Mapping[str, Any]) -> None:
        limit = dumped["limit"]
        self._limit = None if limit is None else int(limit)
        self._seen = {int(bucket): int(n) for bucket, n in dumped["seen"].items()}
        self._blocks = int(dumped["blocks"])
        self._judged.restore(dumped["judged"])


class BurstCheck:
    """Many failures at once. No statistics: so many, and such a share, need none."""

    def __init__(self, burst: Burst) -> None:
        self._burst = burst
        self._window: deque[tuple[int, int, int, int]] = deque(maxlen=math.ceil(burst.within))

    def observe(self, old: Measured, new: Measured) -> None:
        na, a = old.rates.get(ERRORS, (0, 0))
        nb, b = new.rates.get(ERRORS, (0, 0))
        self._window.append((na, a, nb, b))

    def finding(self) -> Finding:
        na, a, nb, b = map(sum, zip((0, 0, 0, 0), *self._window, strict=True))
        new, old = b / nb if nb else 0.0, a / na if na else 0.0
        is_burst = b >= self._burst.errors and new > self._burst.share and new > _BURST_RATIO * old
        outcome = Outcome.FAIL if is_burst else Outcome.PASS
        words = f"{rate_of(b, nb)} within {format_duration(self._burst.within)} failed"
        if is_burst:
            words += f", against {rate_of(a, na)}: rolled back at once"
        return Finding(outcome, words, old=old, new=new)

    def dump(self) -> dict[str, Any]:
        return {"window": [list(second) for second in self._window]}

    def restore(self, dumped: Mapping[str, Any]) -> None:
        self._window.clear()
        self._window.extend((int(na), int(a), int(nb), int(b)) for na, a, nb, b in dumped["window"])


class Judge:
    """Judges `new` beside `old` by what `options` say."""

    def __init__(self, options: Guard, old: str, new: str) -> None:
        self._options, self._old, self._new = options, old, new
        self._checks = _checks(options)
        self._gates = {
            gate.name: Verdict(Outcome.INCONCLUSIVE, "has not been asked yet")
            for gate in options.gates
        }
        self._in_step = 0

    def begin_step(self) -> None:
        """A new step: `min_requests` counts from here. What is known stays known."""
        self._in_step = 0

    def observe(self, block: Block, gates: Mapping[str, Verdict]) -> None:
        """Count a block, all routers' together, and what gates said last. Cost: < 0.1 ms."""
        old, new = block.get(self._old, _NOBODY), block.get(self._new, _NOBODY)
        self._in_step += new.requests
        for check in self._checks.values():
            check.observe(old, new)
        for name in self._gates:
            self._gates[name] = gates.get(name, self._gates[name])

    def verdict(self) -> Verdict:
        """What the guard says by now, with the reason: of what failed, of what is open, of all."""
        findings = self._findings()
        figures = {
            f"{name}.{side}": value
            for name, finding in findings.items()
            for side, value in (("old", finding.old), ("new", finding.new))
            if value is not None
        }
        for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS):
            said = [
                f"{name} {one.words}" for name, one in findings.items() if one.outcome == outcome
            ]
            if outcome is Outcome.INCONCLUSIVE and self._in_step < self._options.min_requests:
                said.insert(0, f"{self._in_step:,} of {self._options.min_requests:,} requests")
            if said:
                return Verdict(outcome, "; ".join(said), figures)
        return Verdict(Outcome.PASS, "no condition was broken", figures)

    def summary(self) -> list[dict[str, Any]]:
        """One row for each check and gate, for status and metrics.

        `p_fail` and `p_pass` are anytime valid p-values: of the guard's failing, corrected for the
        number of checks, to be held against 1 - confidence; of the check's passing.
        """
        shares = max(1, len(self._checks) - (self._options.burst is not None))
        return [
            {
                "check": name,
                "outcome": finding.outcome.value,
                "reason": finding.words,
                "old": finding.old,
                "new": finding.new,
                "ratio": finding.ratio,
                "p_fail": _p_value(finding.against / shares),
                "p_pass": _p_value(finding.in_favour),
            }
            for name, finding in self._findings().items()
        ]

    def dump(self) -> dict[str, Any]:
        """Everything known, as JSON-able data of at most a few kilobytes a check."""
        checks = {name: check.dump() for name, check in self._checks.items()}
        return {"version": VERSION, "in_step": self._in_step, "checks": checks}

    def restore(self, evidence: Mapping[str, Any]) -> None:
        """Take over a `dump`. Checks it does not name start fresh; nothing is a dump too.

        Raises:
            ValueError: it is not a dump, or of a version this code does not know.
        """
        if not evidence:
            return
        if evidence.get("version") != VERSION:
            raise ValueError(f"expected evidence of version {VERSION}, found another")
        try:
            self._in_step = int(evidence["in_step"])
            for name, dumped in evidence["checks"].items():
                if name in self._checks:
                    self._checks[name].restore(dumped)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a dump of evidence: {error!r}") from error

    def _findings(self) -> dict[str, Finding]:
        gates = {
            f"gate {name}": Finding(verdict.outcome, verdict.reason)
            for name, verdict in self._gates.items()
        }
        return {name: check.finding() for name, check in self._checks.items()} | gates


def _checks(options: Guard) -> dict[str, Check]:
    """Every condition but the gates, by the name that people see."""
    rates, quantiles = list(options.rates()), list(options.quantiles())
    terms = Terms(
        alpha=(1.0 - options.confidence) / max(1, len(rates) + len(quantiles)),
        confidence=options.confidence,
        promote_confidence=options.promote_confidence,
        promote_ratio=options.promote_ratio,
        negligible=options.negligible,
    )
    checks: dict[str, Check] = {}
    for _, name, bound in rates:
        checks[name] = RateCheck(name, bound, terms)
    for _, name, q, bound in quantiles:
        kind = QuantileRatioCheck if bound.is_ratio else QuantileCheck
        checks[f"{name} p{q * 100:g}"] = kind(name, q, bound, terms)
    if options.burst is not None:
        checks["burst"] = BurstCheck(options.burst)
    return checks


def _slow(sketch: Sketch | None, limit: int) -> tuple[int, int]:
    """How many there are, and how many are beyond a bucket."""
    return (sum(sketch.values()), beyond(sketch, limit)) if sketch else (0, 0)


def _shown(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def _prefixed(prefix: str, finding: Finding) -> Finding:
    return replace(finding, words=prefix + finding.words)


def _p_value(evidence: float) -> float:
    return min(1.0, 1.0 / evidence) if evidence > 0 else 1.0
