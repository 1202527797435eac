"""`ab`: several variants side by side, at random per request or sticky per unit."""

import math
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from router.messages import VariantState
from router.policies.base import Assignment, Options, Scope, Variant, register
from router.policies.override import Override
from router.policies.sticky import Sticky
from router.policies.weighted import WEIGHT_MAX, Plan, can_take_new_units, replaced
from router.strict import Model
from router.units import format_share, parse_share

VARIANTS_MAX: Final = 64


def parse_weight(value: object) -> float:
    """A relative weight from `50%` or a number like 1 or 0.5.

    Raises:
        ValueError: `value` is neither, is not finite, or lies outside 0..WEIGHT_MAX.
    """
    if isinstance(value, str):
        return parse_share(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise ValueError(f"{value!r} is not a weight, write a percentage like 50% or a number")
    if not 0 <= value <= WEIGHT_MAX:
        raise ValueError(f"{value!r} is not a weight between 0 and {WEIGHT_MAX:.0f}")
    return float(value)


Weight = Annotated[
    float,
    BeforeValidator(parse_weight),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^([0-9]+(?:\.[0-9]+)?)%$"},
                {"type": "number", "minimum": 0, "maximum": WEIGHT_MAX},
            ],
            "description": "a relative weight: 50% or a number",
        }
    ),
]


class AbVariant(Model):
    """A backend taking part, with its relative weight."""

    backend: str
    """The backend that answers."""
    weight: Weight | None = None
    """Relative to the others' weights. All variants have one, or none has: then all are equal."""
    state: VariantState = VariantState.ACTIVE
    """active; drain: known units stay, no new ones come; off: no traffic."""


@register
class AbOptions(Options):
    """Several variants side by side, at random per request or sticky per unit."""

    type: Literal["ab"] = "ab"
    listed: Annotated[
        tuple[AbVariant, ...], Field(alias="variants", min_length=1, max_length=VARIANTS_MAX)
    ]
    """The backends taking part."""
    sticky: Sticky | None = None
    """What an assignment sticks to; without it every request is assigned by itself, at random."""
    override: Override | None = None
    """A header that chooses the variant by its name."""
    otherwise: Annotated[str | None, Field(alias="fallback")] = None
    """The variant that answers for one without a healthy endpoint; by default none does."""

    @model_validator(mode="after")
    def _usable_variants(self) -> "AbOptions":
        require_distinct([entry.backend for entry in self.listed])
        if len({entry.weight is None for entry in self.listed}) > 1:
            raise ValueError("give every variant a weight, or none: then all are equal")
        require_new_units(self.variants())
        require_active(self.otherwise, self.variants())
        return self

    def variants(self) -> tuple[Variant, ...]:
        return normalised(
            tuple(
                Variant(entry.backend, 1.0 if entry.weight is None else entry.weight, entry.state)
                for entry in self.listed
            )
        )

    def build(self, scope: Scope) -> Assignment:
        variants = replaced(self.variants(), scope.weights)
        return Plan(variants, self.sticky, self.override).build(scope)

    def fallback(self, variant: str) -> str | None:
        return self.otherwise if variant != self.otherwise else None

    def warnings(self) -> tuple[str, ...]:
        given = [entry.weight for entry in self.listed if entry.weight is not None]
        total = sum(given)
        # Weights like 1 and 2 are meant as relative; 50% and 40% look like a lapse.
        if not given or max(given) >= 1.0 or abs(total - 1.0) < 1e-9:
            return ()
        shares = ", ".join(f"{v.name} {format_share(v.weight)}" for v in self.variants())
        return (f"the weights sum to {format_share(total)}; they are relative: {shares}",)


def require_distinct(backends: list[str]) -> None:
    """Raises ValueError: a backend is listed twice."""
    repeated = [name for i, name in enumerate(backends) if name in backends[:i]]
    if repeated:
        raise ValueError(f"backend {repeated[0]} is listed twice")


def require_new_units(variants: tuple[Variant, ...]) -> None:
    """Raises ValueError: no variant may get new units."""
    if not can_take_new_units(variants):
        raise ValueError("no variant takes new units: one must be active with a weight above 0")


def require_active(fallback: str | None, variants: tuple[Variant, ...]) -> None:
    """Raises ValueError: `fallback` is not None, and none of the active variants."""
    active = [v.name for v in variants if v.state is VariantState.ACTIVE]
    if fallback is not None and fallback not in active:
        raise ValueError(f"fallback {fallback!r} is not an active variant: {', '.join(active)}")


def normalised(variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
    """`variants` with weights that sum to 1; `off` counts as 0. All 0 stay so."""
    live = [0.0 if v.state is VariantState.OFF else v.weight for v in variants]
    total = sum(live) or 1.0
    return tuple(
        Variant(v.name, weight / total, v.state) for v, weight in zip(variants, live, strict=True)
    )
