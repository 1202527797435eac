"""What the demo promises, checked on what was seen. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from router.demo.readings import Reading
from router.demo.routes import (
    AB,
    ANIMALS,
    BANDIT,
    CANARY,
    CANARY_PERCENT_AT_FIRST,
    CANARY_PERCENT_LATER,
    SHADOW,
)
from router.demo.tally import Tally

SHARE_TOLERANCE_SD: Final = 4.0
"""How many binomial standard deviations a share may lie from its weight."""


@dataclass(frozen=True, slots=True)
class Reload:
    """The rewritten YAML taking effect. `requests`: those finished meanwhile."""

    generation: int
    seconds: float
    requests: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything the summary is made from. `reload` is None when it was never seen."""

    tally: Tally
    first: Reading
    last: Reading
    reload: Reload | None


@dataclass(frozen=True, slots=True)
class Check:
    """One promise, whether it held, and the figures."""

    is_held: bool
    text: str


def judge(outcome: Outcome) -> tuple[Check, ...]:
    """Every check, in the order of the summary."""
    return (
        _no_failures(outcome.tally),
        _reloaded(outcome),
        _sticky(outcome.tally),
        _shares_follow_weights(outcome),
        _shadowed(outcome.last),
        _learned(outcome),
    )


def _no_failures(tally: Tally) -> Check:
    failed = tally.failures.total()
    reasons = "".join(f"\n      {n} x {reason}" for reason, n in tally.failures.most_common(3))
    return Check(
        failed == 0 < tally.requests, f"{failed} of {tally.requests:,} requests failed{reasons}"
    )


def _reloaded(outcome: Outcome) -> Check:
    change = f"canary weight {CANARY_PERCENT_AT_FIRST}% -> {CANARY_PERCENT_LATER}% in the YAML"
    reload = outcome.reload
    if reload is None:
        return Check(False, f"{change}: no new generation was seen")
    weight = outcome.last.weights.get((ANIMALS.name, CANARY), 0.0)
    is_held = math.isclose(weight, CANARY_PERCENT_LATER / 100, abs_tol=1e-6)
    return Check(
        is_held,
        f"{change}: live after {reload.seconds:.2f} s as generation {reload.generation}, "
        f"{reload.requests} requests answered meanwhile; the weight is now {weight:.0%}",
    )


def _sticky(tally: Tally) -> Check:
    seen = tally.stickiness
    return Check(
        seen.violations == 0 < seen.returns,
        f"{seen.violations} stickiness violations in {seen.returns:,} answers to returning users; "
        f"{seen.moves} users moved to the canary as its weight rose",
    )


def _shares_follow_weights(outcome: Outcome) -> Check:
    parts: list[str] = []
    is_held = True
    for route in (ANIMALS, AB):
        weight = outcome.last.weights.get((route.name, CANARY), 0.0)
        share = outcome.tally.share(route.name, CANARY)
        is_held &= is_plausible(share, weight, outcome.tally.recent(route.name))
        parts.append(f"{route.name} {share:.1%} of {weight:.0%}")
    return Check(is_held, f"shares follow the weights: {', '.join(parts)} to {CANARY}")


def is_plausible(share: float, weight: float, answers: int) -> bool:
    """Whether `share` of so many answers can come from `weight`, by the binomial distribution."""
    if answers == 0:
        return False
    return abs(share - weight) <= SHARE_TOLERANCE_SD * math.sqrt(weight * (1 - weight) / answers)


def _shadowed(last: Reading) -> Check:
    lost = sum(last.copies.values()) - last.answered
    return Check(
        last.received >= last.answered > 0,
        f"{last.received:,} shadow copies reached {SHADOW}, {last.answered:,} were answered, "
        f"{lost} lost",
    )


def _learned(outcome: Outcome) -> Check:
    before, after = (
        reading.weights.get((BANDIT.name, CANARY), 0.0) for reading in (outcome.first, outcome.last)
    )
    return Check(
        after > before,
        f"the bandit moved {CANARY}, the better model, from {before:.0%} to {after:.0%}",
    )


def is_all_held(checks: Sequence[Check]) -> bool:
    """Whether the demo kept every promise."""
    return all(check.is_held for check in checks)
