"""`recreate`: the old version ends before the new one begins; what arrives in between waits.

For versions that cannot run beside each other, as when both need the same accelerator.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from router.policies.base import Assignment, HoldBounds, Pools, Scope, Variant, register
from router.policies.stepped import Start, Stepped, alone, at_rest, edit, stage
from router.policies.weighted import Plan as Weighted
from router.policies.weighted import replaced
from router.rollouts.plan import Plan, Stage, Step
from router.strict import Model
from router.units import Duration, Size, format_duration


class Hold(Model):
    """How much may wait; what is beyond it is answered 503 with `retry-after`."""

    requests: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = 1000
    """Most requests that wait."""
    bytes: Annotated[Size, Field(ge=1)] = 64 * 1024 * 1024
    """Most bytes of them that wait in the router."""
    longest: Annotated[Duration, Field(gt=0, alias="for")] = 30.0
    """Longest that one waits."""


@register
class RecreateOptions(Stepped):
    """The old version ends before the new one begins; what arrives in between waits."""

    type: Literal["recreate"] = "recreate"
    exchanges_endpoints = True
    old: Annotated[str, Field(alias="from")]
    """The backend that serves today."""
    new: Annotated[str, Field(alias="to")]
    """The backend that takes its place."""
    hold: Hold = Hold()
    """How much may wait during the change."""
    bake: Duration = 0.0
    """How long the guard watches on after the change; one that fails goes back."""
    start: Start = "manual"
    """manual: `pointsman switch`. auto: at once."""
    ready_timeout: Annotated[Duration, Field(gt=0)] | None = None  # type: ignore[assignment]  # only kinds read their own
    """How long to wait for the old version to drain, and again for the new one to be healthy,
    before the rollout is given up; by default `hold.for`, as long as a request waits."""

    @model_validator(mode="after")
    def _consistent(self) -> "RecreateOptions":
        if self.old == self.new:
            raise ValueError(f"from and to are the same backend, {self.old}")
        alone("guard", self.guard, "")
        return self

    @property
    def hold_bounds(self) -> HoldBounds:
        return HoldBounds(self.hold.requests, self.hold.bytes, self.hold.longest)

    def variants(self) -> tuple[Variant, ...]:
        return at_rest(self.old, self.new)

    def build(self, scope: Scope) -> Assignment:
        return Weighted(replaced(self.variants(), scope.weights)).build(scope)

    def rollout(self, pools: Pools) -> Plan | None:
        olds, news = ({(name, url) for url in pools[name]} for name in (self.old, self.new))
        draining = Stage(stage(self.old, self.new, 0.0).weights, frozenset(olds), is_held=True)
        return Plan(
            old=self.old,
            new=self.new,
            rest=stage(self.old, self.new, 0.0),
            steps=(Step(draining), Step(draining, needs_idle=frozenset(olds))),
            final=Step(stage(self.old, self.new, 1.0, olds), needs_up=frozenset(news)),
            bake_s=self.bake,
            bakes_switched=True,
            starts_by_itself=self.start == "auto",
            can_switch=True,
            weight_max=0.0,
            ready_timeout_s=self.hold.longest if self.ready_timeout is None else self.ready_timeout,
            guard=alone("guard", self.guard, ""),
            edit=edit(self.new),
        )

    def warnings(self) -> tuple[str, ...]:
        longest_s, limit_s = self.hold.longest, self.ready_timeout
        if limit_s is None or limit_s <= longest_s:
            return ()
        return (
            f"ready_timeout is {format_duration(limit_s)}, but a request waits for "
            f"{format_duration(longest_s)} (hold.for): if the change takes longer, requests are "
            "answered 503 until it is over",
        )
