"""`rolling`: the endpoints of the old version are exchanged for those of the new in batches.

Requests are spread over the endpoints in use, of both versions. Of pools of different sizes the
same share is exchanged in each batch: new endpoints rounded up and old ones rounded down, so that
no batch takes away more than it brings.
"""

import re
from math import ceil
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from router.policies.base import Assignment, Pools, Scope, Variant, register
from router.policies.stepped import Stepped, at_rest, by_the_clock, edit, stage
from router.policies.weighted import Plan as Weighted
from router.policies.weighted import replaced
from router.rollouts.plan import Place, Plan, Step
from router.units import Duration, format_share, parse_share

_SHARE: Final = r"[0-9]+(?:\.[0-9]+)?%"


def parse_batch(value: object) -> int | str:
    """A number of endpoints, or a share of them in percent as `format_share` writes it.

    Raises:
        ValueError: it is neither, or not above 0.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    if isinstance(value, str) and re.fullmatch(_SHARE, value) and (share := parse_share(value)):
        return format_share(share)
    raise ValueError(
        f"{value!r} is not a batch, write a number of endpoints from 1, or a percentage like 25%"
    )


Batch = Annotated[
    int | str,
    BeforeValidator(parse_batch),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": _SHARE}],
            "description": "a number of endpoints, or a share of them: 25%",
        }
    ),
]


@register
class RollingOptions(Stepped):
    """The endpoints of the old version are exchanged for those of the new in batches."""

    type: Literal["rolling"] = "rolling"
    exchanges_endpoints = True
    old: Annotated[str, Field(alias="from")]
    """The backend that serves today."""
    new: Annotated[str, Field(alias="to")]
    """The backend that takes its place."""
    batch: Batch = 1
    """Endpoints exchanged at a time, of the larger backend: a number or a share."""
    hold: Duration = 0.0
    """How long each batch is watched at least before the next."""

    @model_validator(mode="after")
    def _two_backends(self) -> "RollingOptions":
        if self.old == self.new:
            raise ValueError(f"from and to are the same backend, {self.old}")
        return self

    def variants(self) -> tuple[Variant, ...]:
        return at_rest(self.old, self.new)

    def build(self, scope: Scope) -> Assignment:
        return Weighted(replaced(self.variants(), scope.weights)).build(scope)

    def fallback(self, variant: str) -> str | None:
        """While both are in use either answers for the other: together they are one pool."""
        return {self.old: self.new, self.new: self.old}.get(variant)

    def rollout(self, pools: Pools) -> Plan | None:
        old, new = self._places(pools, self.old), self._places(pools, self.new)
        steps = self._plan_steps(old, new)
        return Plan(
            old=self.old,
            new=self.new,
            rest=stage(self.old, self.new, 0.0, new),
            steps=steps,
            final=Step(steps[-1].stage),
            needs_one_up=(self.new,),
            bakes_switched=True,
            reverses=True,
            starts_by_itself=self.start == "auto",
            can_switch=True,
            weight_max=1.0,
            ready_timeout_s=self.ready_timeout,
            guard=self.guard,
            edit=edit(self.new),
        )

    def _places(self, pools: Pools, backend: str) -> dict[Place, float]:
        """Endpoint -> its share of the weight of its backend."""
        total = sum(pools[backend].values())
        return {(backend, url): weight / total for url, weight in pools[backend].items()}

    def _plan_steps(self, old: dict[Place, float], new: dict[Place, float]) -> tuple[Step, ...]:
        batches = self._batches(max(len(old), len(new)))
        steps = []
        for batch in range(1, batches + 1):
            n_out, n_in = len(old) * batch // batches, ceil(len(new) * batch / batches)
            out, used = list(old)[:n_out], list(new)[:n_in]
            brought = sum(new[place] for place in used)
            left = sum(old[place] for place in list(old)[n_out:])
            idle = [*out, *list(new)[n_in:]]
            at = stage(self.old, self.new, brought / (brought + left), idle)
            steps.append(Step(at, self.hold, needs_up=frozenset(used)))
        return tuple(steps)

    def _batches(self, endpoints: int) -> int:
        if isinstance(self.batch, int):
            return ceil(endpoints / self.batch)
        return min(endpoints, ceil(1.0 / parse_share(self.batch)))

    def warnings(self) -> tuple[str, ...]:
        return (by_the_clock("the exchange has"),) if self.guard is None else ()
