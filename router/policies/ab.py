"""`ab`: several variants side by side, at random per request or sticky per unit.

Segments of requests may have weights of their own, and only some units may take part.
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from router.messages import Request, VariantState
from router.policies.base import Assignment, Options, Scope, Variant, register
from router.policies.conditions import Conditions
from router.policies.layers import Admission, Experiment, slots
from router.policies.override import Override
from router.policies.segments import (
    SEGMENTS_MAX,
    SegmentName,
    compile_segments,
    name_segments,
)
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


class AbSegment(Model):
    """Requests that have weights of their own."""

    name: SegmentName | None = None
    """In reports, metrics and receipts; by default segment-1, segment-2 and so on."""
    when: Conditions
    """Which requests: one condition, or a list of which all must hold."""
    listed: Annotated[
        tuple[AbVariant, ...], Field(alias="variants", min_length=1, max_length=VARIANTS_MAX)
    ]
    """The backends that take part here."""

    @model_validator(mode="after")
    def _usable_variants(self) -> "AbSegment":
        require_usable(self.listed)
        return self


@register
class AbOptions(Options):
    """Several variants side by side, at random per request or sticky per unit."""

    type: Literal["ab"] = "ab"
    listed: Annotated[
        tuple[AbVariant, ...], Field(alias="variants", min_length=1, max_length=VARIANTS_MAX)
    ]
    """The backends taking part."""
    ordered: Annotated[tuple[AbSegment, ...], Field(alias="segments", max_length=SEGMENTS_MAX)] = ()
    """Requests with weights of their own: the first whose conditions hold. What is in none has the
    weights of `variants`."""
    layered: Annotated[Experiment | None, Field(alias="experiment")] = None
    """Which units take part; by default all."""
    sticky: Sticky | None = None
    """What an assignment sticks to; without it every request is assigned by itself, at random."""
    override: Override | None = None
    """A header that chooses the variant by its name."""
    otherwise: Annotated[str | None, Field(alias="fallback")] = None
    """The variant that answers for one without a healthy endpoint; by default none does."""

    @model_validator(mode="after")
    def _usable_variants(self) -> "AbOptions":
        require_usable(self.listed)
        require_active(self.otherwise, self.variants())
        name_segments([segment.name for segment in self.ordered])
        require_units(self.layered, self.sticky, self.variants())
        return self

    def variants(self) -> tuple[Variant, ...]:
        """Those of segments too, with weight 0 where `variants` does not list them."""
        listed = weighed(self.listed)
        known = {variant.name for variant in listed}
        backends = (entry.backend for segment in self.ordered for entry in segment.listed)
        more = dict.fromkeys(name for name in backends if name not in known)
        return (*listed, *(Variant(name, 0.0) for name in more))

    def shares(self) -> dict[str, dict[str, float]]:
        segments = {cell: weighed(segment.listed) for cell, segment in self._segments().items()}
        cells = {"": self.variants()} | segments
        return {cell: {v.name: v.weight for v in listed} for cell, listed in cells.items()}

    def build(self, scope: Scope) -> Assignment:
        segments = self._segments()
        of_cells: Mapping[str, Mapping[str, float]] = scope.cells or {}
        admission = admission_of(self.layered, scope, self.variants())
        return Plan(
            replaced(self.variants(), scope.weights),
            self.sticky,
            self.override,
            unidentified=None if admission is None else admission.control,
            cells={
                cell: replaced(weighed(segment.listed), of_cells.get(cell))
                for cell, segment in segments.items()
            },
            cell_of=compile_segments([(cell, one.when) for cell, one in segments.items()]),
            admission=admission,
        ).build(scope)

    def _segments(self) -> dict[str, AbSegment]:
        names = name_segments([segment.name for segment in self.ordered])
        return dict(zip(names, self.ordered, strict=True))

    @property
    def cells(self) -> tuple[str, ...]:
        return tuple(self._segments())

    @property
    def experiment(self) -> Experiment | None:
        return self.layered

    @property
    def unit_of(self) -> Callable[[Request], bytes | None] | None:
        return None if self.sticky is None else self.sticky.build()

    def fallback(self, variant: str) -> str | None:
        return self.otherwise if variant != self.otherwise else None

    def warnings(self) -> tuple[str, ...]:
        segments = self._segments().items()
        return (
            *uneven(self.listed),
            *(f"{cell}: {text}" for cell, one in segments for text in uneven(one.listed)),
        )


def uneven(listed: tuple[AbVariant, ...]) -> tuple[str, ...]:
    """What to point out when weights look like shares and do not sum to 100 %."""
    given = [entry.weight for entry in listed if entry.weight is not None]
    total = sum(given)
    # Weights like 1 and 2 are meant as relative; 50% and 40% look like a lapse.
    if not given or max(given) >= 1.0 or abs(total - 1.0) < 1e-9:
        return ()
    shares = ", ".join(f"{v.name} {format_share(v.weight)}" for v in weighed(listed))
    return (f"the weights sum to {format_share(total)}; they are relative: {shares}",)


def weighed(listed: tuple[AbVariant, ...]) -> tuple[Variant, ...]:
    """What is listed, with weights that sum to 1."""
    return normalised(
        tuple(
            Variant(entry.backend, 1.0 if entry.weight is None else entry.weight, entry.state)
            for entry in listed
        )
    )


def require_usable(listed: tuple[AbVariant, ...]) -> None:
    """Raises ValueError: a backend is listed twice, some have weights, or none gets new units."""
    require_distinct([entry.backend for entry in listed])
    if len({entry.weight is None for entry in listed}) > 1:
        raise ValueError("give every variant a weight, or none: then all are equal")
    require_new_units(weighed(listed))


def require_distinct(backends: list[str]) -> None:
    """Raises ValueError: a backend is listed twice."""
    repeated = [name for i, name in enumerate(backends) if name in backends[:i]]
    if repeated:
        raise ValueError(f"backend {repeated[0]} is listed twice")


def require_new_units(variants: tuple[Variant, ...]) -> None:
    """Raises ValueError: no variant may get new units."""
    if not can_take_new_units(variants):
        raise ValueError("no variant takes new units: one must be active with a weight above 0")


def require_units(
    experiment: Experiment | None, sticky: Sticky | None, variants: tuple[Variant, ...]
) -> None:
    """Raises ValueError: there is an experiment without units, or without its control."""
    if experiment is not None:
        if sticky is None:
            raise ValueError("an experiment is of units: say with sticky what they are")
        experiment.control_among(active_names(variants))


def admission_of(
    experiment: Experiment | None, scope: Scope, variants: tuple[Variant, ...]
) -> Admission | None:
    """Who takes part, or None: everybody. Without a place in its layer it is alone there."""
    if experiment is None:
        return None
    slot = scope.slot or slots({scope.route: experiment})[scope.route]
    return Admission(slot, experiment.control_among(active_names(variants)))


def active_names(variants: tuple[Variant, ...]) -> list[str]:
    """Variants that may get new units, in their order."""
    return [variant.name for variant in variants if variant.state is VariantState.ACTIVE]


def require_active(fallback: str | None, variants: tuple[Variant, ...]) -> None:
    """Raises ValueError: `fallback` is not None, and none of the active variants."""
    active = active_names(variants)
    if fallback is not None and fallback not in active:
        raise ValueError(f"fallback {fallback!r} is not an active variant: {', '.join(active)}")


def normalised(variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
    """`variants` with weights that sum to 1; `off` counts as 0. All 0 stay so."""
    live = [0.0 if v.state is VariantState.OFF else v.weight for v in variants]
    total = sum(live) or 1.0
    return tuple(
        Variant(v.name, weight / total, v.state) for v, weight in zip(variants, live, strict=True)
    )
