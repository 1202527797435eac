"""`canary`: a small, sticky share of units gets the new version; everyone else the stable one.

The share is constant, or it rises in steps (a rollout). After promotion, which is a stable weight
of 0, everything is the canary's, also what has no unit.
"""

from collections.abc import Callable, Mapping
from math import ceil
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from router.messages import Request
from router.policies.base import Assignment, Pools, Scope, Variant, register
from router.policies.override import Override
from router.policies.stepped import Stepped, at_rest, by_the_clock, edit, stage
from router.policies.sticky import Sticky
from router.policies.weighted import Plan as Weighted
from router.policies.weighted import replaced
from router.rollouts.plan import Plan, Step
from router.strict import Model, mistake_at
from router.units import Duration, Share, format_share

WEIGHT_LIMIT: Final = 0.5
WEIGHT_WARNING: Final = 0.35
STEPS_MAX: Final = 100
"""More are a ramp that nobody follows."""
_ROUNDED_TO: Final = 9
"""Decimals of a ramp's weights: sums of steps like 0.1 are not exact."""


def _canary_weight(value: float) -> float:
    if value > WEIGHT_LIMIT:
        raise ValueError(
            f"{format_share(value)} is more than {format_share(WEIGHT_LIMIT)}: past that, promote "
            "(make the canary the stable version)"
        )
    return value


CanaryWeight = Annotated[Share, AfterValidator(_canary_weight)]


class Pause(Model):
    """`{}`: the step waits for `pointsman promote`."""


class CanaryStep(Model):
    """One step of a canary's ramp."""

    weight: CanaryWeight | None = None
    """Share of units that get the canary, at most 50%. Without it, as in the step before."""
    hold: Duration = 0.0
    """How long the step lasts at least."""
    pause: Pause | None = None
    """`{}`: after that it waits for `pointsman promote`."""

    @model_validator(mode="after")
    def _says_something(self) -> "CanaryStep":
        if self.weight is None and self.pause is None:
            raise ValueError("a step has a weight, unless it is a pause: {}")
        return self


class Ramp(Model):
    """The short form of steps: equal ones."""

    first: Annotated[CanaryWeight, Field(alias="from")]
    """Weight of the first step."""
    to: CanaryWeight
    """Weight of the last step, at most 50%."""
    step: Annotated[Share, Field(gt=0)]
    """How much the weight rises with each step."""
    interval: Annotated[Duration, Field(gt=0)]
    """How long each step lasts at least."""

    @model_validator(mode="after")
    def _rises(self) -> "Ramp":
        if self.first > self.to:
            first, to = format_share(self.first), format_share(self.to)
            raise mistake_at(("from",), f"{first} is more than `to`, {to}: a ramp only rises")
        return self

    def steps(self) -> tuple[CanaryStep, ...]:
        """The same as a list of steps."""
        rises = ceil(round((self.to - self.first) / self.step, _ROUNDED_TO))
        shares = (self.first + self.step * i for i in range(min(rises, STEPS_MAX)))
        weights = [*(round(share, _ROUNDED_TO) for share in shares), self.to]
        # Made of checked values, and a number of seconds is no duration as YAML has it.
        return tuple(CanaryStep.model_construct(weight=w, hold=self.interval) for w in weights)


def _steps(value: object) -> object:
    return Ramp.model_validate(value).steps() if isinstance(value, Mapping) else value


def _rising(steps: tuple[CanaryStep, ...]) -> tuple[CanaryStep, ...]:
    before = 0.0
    for i, step in enumerate(steps):
        if step.weight is None:
            continue
        if step.weight < before:
            raise mistake_at(
                (i, "weight"),
                f"{format_share(step.weight)} is less than {format_share(before)} of the step "
                "before: the weight only rises; back it goes by a rollback, all at once",
            )
        before = step.weight
    return steps


Steps = Annotated[
    tuple[CanaryStep, ...],
    Field(min_length=1, max_length=STEPS_MAX),
    AfterValidator(_rising),
    BeforeValidator(_steps, json_schema_input_type=tuple[CanaryStep, ...] | Ramp),
]


@register
class CanaryOptions(Stepped):
    """A small, sticky share of units gets the new version; everyone else the stable one."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["weight"]}, {"required": ["steps"]}]}
    )

    type: Literal["canary"] = "canary"
    stable: str
    """The backend that serves today, and serves every request without a unit."""
    canary: str
    """The backend on trial."""
    weight: CanaryWeight | None = None
    """Share of units that get the canary, at most 50%. With `guard`, a rollout of one step."""
    steps: Steps | None = None
    """The weights it rises through, a list or `{from, to, step, interval}`. Instead of `weight`."""
    bake: Duration = 0.0
    """How long the guard watches on, at the weight of the last step, before promotion."""
    keep: Duration = 3600.0
    """How long after promotion a rollback is still taken."""
    sticky: Sticky
    """What an assignment sticks to."""
    override: Override | None = None
    """A header that chooses the variant: `always` (canary), `never` (stable), or its name."""

    @model_validator(mode="after")
    def _consistent(self) -> "CanaryOptions":
        if self.stable == self.canary:
            raise ValueError(f"stable and canary are the same backend, {self.stable}")
        if (self.weight is None) == (self.steps is None):
            raise ValueError("a canary has exactly one of weight and steps")
        if not self.is_measured:
            needless = self.model_fields_set & {
                "bake",
                "keep",
                "start",
                "ready_timeout",
                "revision",
            }
            if needless:
                raise ValueError(
                    f"{' and '.join(sorted(needless))}: a constant weight is no rollout; "
                    "give it steps, or a guard"
                )
        return self

    @property
    def is_measured(self) -> bool:
        return self.steps is not None or self.guard is not None

    def variants(self) -> tuple[Variant, ...]:
        if self.is_measured or self.weight is None:
            return at_rest(self.stable, self.canary)
        return Variant(self.stable, 1.0 - self.weight), Variant(self.canary, self.weight)

    def build(self, scope: Scope) -> Assignment:
        variants = replaced(self.variants(), scope.weights)
        is_promoted = variants[0].weight == 0.0
        return Weighted(
            variants=variants,
            sticky=self.sticky,
            override=self.override,
            words={"always": self.canary, "never": self.stable},
            unidentified=self.canary if is_promoted else self.stable,
        ).build(scope)

    @property
    def unit_of(self) -> Callable[[Request], bytes | None]:
        return self.sticky.build()

    def fallback(self, variant: str) -> str | None:
        return self.stable if variant == self.canary else None

    def rollout(self, pools: Pools) -> Plan | None:
        if not self.is_measured:
            return None
        return Plan(
            old=self.stable,
            new=self.canary,
            rest=stage(self.stable, self.canary, 0.0),
            steps=self._plan_steps(),
            final=Step(stage(self.stable, self.canary, 1.0)),
            needs_one_up=(self.canary,),
            bake_s=self.bake,
            starts_by_itself=self.start == "auto",
            weight_max=WEIGHT_LIMIT,
            ready_timeout_s=self.ready_timeout,
            keep_s=self.keep,
            guard=self.guard,
            edit=edit(self.canary),
        )

    def _plan_steps(self) -> tuple[Step, ...]:
        steps = self.steps or (CanaryStep(weight=self.weight, pause=Pause()),)
        planned: list[Step] = []
        share = 0.0
        for step in steps:
            share = share if step.weight is None else step.weight
            at = stage(self.stable, self.canary, share)
            planned.append(Step(at, step.hold, is_gated=step.pause is not None))
        return tuple(planned)

    def warnings(self) -> tuple[str, ...]:
        if self.steps is not None:
            is_free = self.guard is None and any(step.pause is None for step in self.steps)
            return (by_the_clock("the ramp has"),) if is_free else ()
        if self.weight is None or self.weight <= WEIGHT_WARNING:
            return ()
        return (
            f"a canary weight of {format_share(self.weight)} is more than "
            f"{format_share(WEIGHT_WARNING)}: that many users meet a version on trial",
        )
