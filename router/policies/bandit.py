"""`bandit`: weights follow the rewards, so that traffic moves to the variant that earns most.

Owns the options, and the learner that turns rewards into weights. The assignment is the shared one
(`weighted.py`); what is known of an arm is in `posterior.py`.

1. Thompson sampling by its probabilities: a variant's weight is the probability that it is the best
   (Thompson 1933; as weights for traffic: Scott 2010), so the weight is the propensity.
2. w = f + (1 - K f) P for K active variants: the floor f keeps every variant observed.
3. A variant that joins others that have settled starts small, see `NEWCOMER_SHARE`.
4. Rewards alone change what is known; `weights` only reads. So equal rewards in equal order give
   equal weights, however often they are asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from router.messages import VariantState
from router.policies.ab import (
    normalised,
    require_active,
    require_distinct,
    require_new_units,
)
from router.policies.base import Assignment, Learner, Options, Scope, Variant, register
from router.policies.override import Override
from router.policies.posterior import CHUNK_REWARDS, Evidence, probability_best
from router.policies.sticky import Sticky
from router.policies.weighted import Plan, replaced
from router.strict import Model
from router.units import format_share, parse_share

VARIANTS_MAX: Final = 32
NEWCOMER_SHARE: Final = 0.1
"""Most a newcomer gets. Knowing nothing of it, its uniform posterior would win it most traffic."""
NEWCOMER_REWARDS: Final = 100
"""Rewards after which a variant has settled."""


def _min_share(value: object) -> object:
    return value if value == "auto" else parse_share(value)


MinShare = Annotated[
    float | Literal["auto"],
    BeforeValidator(_min_share),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": "auto"},
                {"type": "string", "pattern": r"^([0-9]+(?:\.[0-9]+)?)%$"},
                {"type": "number", "minimum": 0, "maximum": 1},
            ],
            "description": "auto, or a share: 2% or 0.02",
        }
    ),
]


class BanditVariant(Model):
    """A backend taking part."""

    backend: str
    """The backend that answers."""
    state: VariantState = VariantState.ACTIVE
    """active; drain: known units stay, no new ones come; off: no traffic. All keep what was
    learned of them."""


@register
class BanditOptions(Options):
    """Weights follow the rewards, so that traffic moves to the variant that earns most."""

    type: Literal["bandit"] = "bandit"
    algorithm: Literal["thompson"] = "thompson"
    """How rewards become weights. thompson: the weight is the probability of being best."""
    listed: Annotated[
        tuple[BanditVariant, ...], Field(alias="variants", min_length=1, max_length=VARIANTS_MAX)
    ]
    """The backends taking part."""
    reward: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")] = "reward"
    """What a reward of 1 stands for, like click: a name for people."""
    min_share: MinShare = "auto"
    """Least share of an active variant. auto: 2%, less from three variants on."""
    sticky: Sticky | None = None
    """What an assignment sticks to; without it every request is assigned by itself, at random."""
    override: Override | None = None
    """A header that chooses the variant by its name."""
    otherwise: Annotated[str | None, Field(alias="fallback")] = None
    """The variant that answers for one without a healthy endpoint; by default none does."""

    @model_validator(mode="after")
    def _usable_variants(self) -> "BanditOptions":
        require_distinct([entry.backend for entry in self.listed])
        require_new_units(self.variants())
        require_active(self.otherwise, self.variants())
        active = sum(v.state is VariantState.ACTIVE for v in self.variants())
        if self.min_share != "auto" and self.min_share * active > 1.0:
            raise ValueError(
                f"min_share {format_share(self.min_share)} of {active} active variants is more "
                "than 100%"
            )
        return self

    def variants(self) -> tuple[Variant, ...]:
        return normalised(tuple(Variant(entry.backend, 1.0, entry.state) for entry in self.listed))

    def build(self, scope: Scope) -> Assignment:
        variants = replaced(self.variants(), scope.weights, missing=self._floor())
        return Plan(variants, self.sticky, self.override).build(scope)

    def fallback(self, variant: str) -> str | None:
        return self.otherwise if variant != self.otherwise else None

    def learner(self) -> Learner:
        return Thompson(self.variants(), self._floor(), is_sticky=self.sticky is not None)

    def _floor(self) -> float:
        if self.min_share != "auto":
            return self.min_share
        active = sum(v.state is VariantState.ACTIVE for v in self.variants())
        return min(0.02, 0.05 / active)


class _ArmState(Model):
    """One variant in a dump."""

    rewards: Annotated[int, Field(ge=0)]
    total: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    ever: Annotated[int, Field(ge=0)]
    chunks: tuple[tuple[int, float], ...]
    newcomer: bool

    @model_validator(mode="after")
    def _consistent(self) -> "_ArmState":
        slack = 1e-6 * (1 + self.rewards)  # what rounding may have left in sums of fractions
        counted = sum(count for count, _ in self.chunks)
        if self.total > self.rewards + slack or not counted <= self.rewards <= self.ever:
            raise ValueError("sums of rewards that contradict each other")
        if any(not (0 <= c <= CHUNK_REWARDS and 0 <= t <= c + slack) for c, t in self.chunks):
            raise ValueError("a chunk of rewards that cannot be")
        return self


class _State(Model):
    """A dump. Variants are keyed by name, so that others may come and go."""

    version: Literal[1] = 1
    variants: dict[str, _ArmState]


@dataclass(slots=True)
class _Arm:
    """What is known of a variant, and whether it came when others had settled."""

    evidence: Evidence = field(default_factory=Evidence)
    is_newcomer: bool = False

    def dump(self) -> _ArmState:
        e = self.evidence
        return _ArmState(
            rewards=e.n,
            total=e.total,
            ever=e.ever,
            chunks=tuple(e.chunks),
            newcomer=self.is_newcomer,
        )

    @classmethod
    def restore(cls, state: _ArmState) -> "_Arm":
        evidence = Evidence(state.rewards, state.total, state.ever)
        evidence.chunks.extend(state.chunks)
        return cls(evidence, state.newcomer)


class Thompson:
    """The learner. `observe` and `restore` change it, all else reads."""

    def __init__(self, variants: Sequence[Variant], floor: float, *, is_sticky: bool) -> None:
        """`floor` is the least share of an active variant, at most 1 / their number."""
        self._floor = floor
        self._active = [v.name for v in variants if v.state is VariantState.ACTIVE]
        # Only units known before reach a draining variant, and only a sticky policy has units.
        self._draining = [v.name for v in variants if v.state is VariantState.DRAIN and is_sticky]
        self._arms = {v.name: _Arm() for v in variants}
        self._absent: dict[str, _ArmState] = {}

    def observe(self, variant: str, reward: float) -> None:
        arm = self._arms.get(variant)
        if arm is None:
            return
        arm.evidence.observe(reward)
        if arm.evidence.ever >= NEWCOMER_REWARDS:
            arm.is_newcomer = False

    def weights(self) -> dict[str, float]:
        """Variant -> weight, summing to 1; 0 for one that is off.

        Draining variants keep what they would have among all, for the units that know them; the
        active ones share the rest as if they were alone. Cost: that of `probability_best`.
        """
        weights = dict.fromkeys(self._arms, 0.0)
        if self._draining:
            among_all = self._floored([*self._active, *self._draining])
            weights |= {name: among_all[name] for name in self._draining}
        rest = 1.0 - sum(weights.values())
        shares = self._with_newcomers_held_back(self._floored(self._active))
        return weights | {name: share * rest for name, share in shares.items()}

    def summary(self) -> dict[str, dict[str, float]]:
        """Variant -> `rewards` ever, `evidence` (those since it last changed), `mean` of the
        posterior, `p_best` (among all variants, whatever their state) and `weight`."""
        best, weights = self._best(list(self._arms)), self.weights()
        return {
            name: {
                "rewards": float(arm.evidence.ever),
                "evidence": float(arm.evidence.n),
                "mean": arm.evidence.mean,
                "p_best": best[name],
                "weight": weights[name],
            }
            for name, arm in self._arms.items()
        }

    def dump(self) -> dict[str, Any]:
        present = {name: arm.dump() for name, arm in self._arms.items()}
        return _State(variants=self._absent | present).model_dump(mode="json")

    def restore(self, state: Mapping[str, Any]) -> None:
        variants = _State.model_validate(state).variants
        self._absent = {name: arm for name, arm in variants.items() if name not in self._arms}
        self._arms = {
            name: _Arm.restore(variants[name]) if name in variants else _Arm()
            for name in self._arms
        }
        ever = {name: arm.evidence.ever for name, arm in self._arms.items()}
        if max(ever.values()) >= NEWCOMER_REWARDS:
            # Half, so that variants that began together do not hold each other back.
            for name, arm in self._arms.items():
                arm.is_newcomer |= ever[name] < NEWCOMER_REWARDS / 2

    def _best(self, names: list[str]) -> dict[str, float]:
        posteriors = [self._arms[name].evidence.beta for name in names]
        return dict(zip(names, probability_best(posteriors), strict=True))

    def _floored(self, names: list[str]) -> dict[str, float]:
        floor = min(self._floor, 1.0 / len(names))
        rest = 1.0 - len(names) * floor
        return {name: floor + rest * best for name, best in self._best(names).items()}

    def _with_newcomers_held_back(self, weights: dict[str, float]) -> dict[str, float]:
        """Newcomers' weights cut to their bound, the others' raised in proportion."""
        limit = max(NEWCOMER_SHARE, self._floor)
        held = {
            name: min(weight, limit)
            for name, weight in weights.items()
            if self._arms[name].is_newcomer
        }
        others = {name: weight for name, weight in weights.items() if name not in held}
        if not held or not others:
            return weights
        scale = (1.0 - sum(held.values())) / sum(others.values())
        return held | {name: weight * scale for name, weight in others.items()}
