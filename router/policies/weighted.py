"""The assignment every weighted policy shares: override, then sticky unit, then random.

Owns the order of choice, the meaning of a variant's state and the propensities. It must not know
what sets the weights. Everything is built before traffic; `assign` looks things up.

Two pools of variants stand for the states:
1. `known`, active and draining ones: a unit that comes with a request may have been here before,
   so it keeps the variant its hash says, draining or not.
2. `fresh`, active ones only: who cannot have been here before (a unit that we issue now, a request
   without a unit) never lands on a draining variant.
A unit is issued only if its hash over `known` lands in `fresh`, so that its next request agrees.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from router.messages import Decision, Request, VariantState
from router.policies.base import Assignment, Scope, Variant
from router.policies.hashing import Rendezvous
from router.policies.override import Override
from router.policies.sticky import Sticky

ISSUE_TRIES: Final = 256
"""Units tried before none is issued: matters only where draining variants hold over 95 %."""


WEIGHT_MAX: Final = 1e6
"""Larger weights are typing errors; the bound keeps sums finite."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a weighted assignment is built from.

    `words` are override values besides variants' names. `unidentified` names the variant of
    requests that have no unit though units are asked for; None sends them at random.
    """

    variants: tuple[Variant, ...]
    sticky: Sticky | None = None
    override: Override | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    unidentified: str | None = None

    def build(self, scope: Scope) -> Assignment:
        """Compile for traffic."""
        live = {v.name: v.weight for v in self.variants if v.state is not VariantState.OFF}
        known = _shares(live)
        active = {v.name for v in self.variants if v.state is VariantState.ACTIVE}
        fresh = _shares({name: weight for name, weight in live.items() if name in active})
        weights = {v.name: fresh.get(v.name, 0.0) for v in self.variants}
        assignment: Assignment = _Random(weights)
        if self.unidentified is not None:
            assignment = _Constant(weights, Decision(self.unidentified, 1.0, "no_unit"))
        if self.sticky is not None:
            rendezvous = Rendezvous(scope.salt, known)
            if (around := self.sticky.set_cookie()) is not None:
                assignment = _Issuing(assignment, rendezvous, fresh, scope.mint, around)
            assignment = _Sticky(assignment, rendezvous, known, self.sticky.build())
        if self.override is not None:
            targets = {name: name for name in live} | dict(self.words)
            forced = {
                word.encode(): Decision(name, 1.0, "override") for word, name in targets.items()
            }
            assignment = self.override.build(assignment, forced)
        return assignment


def replaced(
    variants: tuple[Variant, ...], weights: Mapping[str, float] | None, missing: float | None = None
) -> tuple[Variant, ...]:
    """`variants` with the weights a controller set, as far as they make sense.

    Unknown names are ignored. A variant that is not named, or whose weight is not in
    0..WEIGHT_MAX, gets `missing`, or keeps its own weight when that is None. If no active variant
    had a weight then, all keep their own: never raises.
    """
    if weights is None:
        return variants

    def weight(variant: Variant) -> float:
        value = weights.get(variant.name)
        if value is not None and 0.0 <= value <= WEIGHT_MAX:  # false for nan
            return value
        return variant.weight if missing is None else missing

    changed = tuple(Variant(v.name, weight(v), v.state) for v in variants)
    return changed if can_take_new_units(changed) else variants


def can_take_new_units(variants: tuple[Variant, ...]) -> bool:
    """Whether some active variant has a weight above 0."""
    return any(v.weight > 0.0 and v.state is VariantState.ACTIVE for v in variants)


def _shares(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


class _Random:
    """Each request by itself."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = weights
        drawn = [(name, weight) for name, weight in weights.items() if weight > 0.0]
        # The last bound is left out, so that rounding cannot put `u` beyond the last variant.
        self._bounds = list(accumulate(weight for _, weight in drawn))[:-1]
        self._decisions = [Decision(name, weight, "random") for name, weight in drawn]

    def assign(self, request: Request, u: float) -> Decision:
        return self._decisions[bisect_right(self._bounds, u)]


class _Constant:
    """Always the same decision."""

    def __init__(self, weights: Mapping[str, float], decision: Decision) -> None:
        self.weights = weights
        self._decision = decision

    def assign(self, request: Request, u: float) -> Decision:
        return self._decision


class _Issuing:
    """Gives the request a unit, in a cookie."""

    def __init__(
        self,
        otherwise: Assignment,
        rendezvous: Rendezvous,
        fresh: Mapping[str, float],
        mint: Callable[[], str],
        around: tuple[bytes, bytes],
    ) -> None:
        self.weights = otherwise.weights
        self._otherwise = otherwise.assign
        self._choose = rendezvous.choose
        self._fresh = fresh
        self._mint = mint
        self._before, self._after = around

    def assign(self, request: Request, u: float) -> Decision:
        for _ in range(ISSUE_TRIES):
            unit = self._mint().encode()
            name = self._choose(unit)
            if name in self._fresh:
                cookie = self._before + unit + self._after
                return Decision(name, self._fresh[name], "sticky", cookie)
        # No promise rather than one the next request would break.
        return self._otherwise(request, u)


class _Sticky:
    """The variant the unit's hash says; requests without a unit go to `otherwise`."""

    def __init__(
        self,
        otherwise: Assignment,
        rendezvous: Rendezvous,
        known: Mapping[str, float],
        unit: Callable[[Request], bytes | None],
    ) -> None:
        self.weights = otherwise.weights
        self._otherwise = otherwise.assign
        self._choose = rendezvous.choose
        self._unit = unit
        self._decisions = {name: Decision(name, share, "sticky") for name, share in known.items()}

    def assign(self, request: Request, u: float) -> Decision:
        unit = self._unit(request)
        if unit:
            return self._decisions[self._choose(unit)]
        return self._otherwise(request, u)
