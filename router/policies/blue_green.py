"""`blue_green`: all traffic to the active colour, then, with one switch, all to the preview.

Testers reach the preview by a header before the switch. The active colour is kept ready after it.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from router.policies.base import Assignment, Pools, Scope, Variant, register
from router.policies.override import Override, Source
from router.policies.stepped import Start, Stepped, alone, at_rest, by_the_clock, edit, stage
from router.policies.sticky import HeaderName, Sticky
from router.policies.weighted import Plan as Weighted
from router.policies.weighted import replaced
from router.rollouts.options import Guard
from router.rollouts.plan import Plan, Step
from router.strict import mistake_at
from router.units import Duration

_OF_GATES: Final = frozenset({"gates", "on_inconclusive", "max_wait"})
"""Keys of a guard that mean something where nothing is measured."""
PARTS: Final = 10
"""A switch over time moves a tenth of the traffic at the beginning of each tenth of the time."""


@register
class BlueGreenOptions(Stepped):
    """All traffic to the active colour, then, with one switch, all to the preview."""

    type: Literal["blue_green"] = "blue_green"
    active: str
    """The backend that serves today."""
    preview: str
    """The backend that is to serve after the switch."""
    preview_header: HeaderName | None = None
    """Header with which testers choose: `always`, `true` or a backend's name; `never`: active."""
    allow_from: Annotated[tuple[Source, ...], Field(min_length=1)] = ("loopback", "private")
    """Client addresses `preview_header` is honoured from: networks, any, private, loopback."""
    pre_guard: Guard | None = None
    """Conditions on what testers get from the preview, before the switch."""
    bake: Duration = 0.0
    """How long the guard watches on after the switch; one that fails switches back."""
    over: Duration = 0.0
    """Time over which the traffic is switched, in ten equal parts; 0: at once."""
    sticky: Sticky | None = None
    """What an assignment sticks to while both colours get traffic; without it, nothing."""
    start: Start = "manual"
    """manual: `pointsman switch`. auto: as soon as the preview is up and `pre_guard` passes."""
    keep: Duration = 3600.0
    """How long after promotion the switch back is still taken."""

    @model_validator(mode="after")
    def _consistent(self) -> "BlueGreenOptions":
        if self.active == self.preview:
            raise ValueError(f"active and preview are the same backend, {self.active}")
        if self.preview_header is None and "allow_from" in self.model_fields_set:
            raise ValueError("allow_from is about preview_header, there is none")
        self._guard()
        self._pre_guard()
        return self

    def _guard(self) -> Guard | None:
        """The guard as it can be judged: a switch at once leaves nothing to compare with."""
        if self.over:
            return self.guard
        return alone("guard", self.guard, ", or let the switch take time (over)")

    def _pre_guard(self) -> Guard | None:
        """The guard before the switch as it can be judged: without testers only its gates can."""
        guard = self.pre_guard
        if guard is None or self.preview_header is not None:
            return guard
        written = sorted(guard.model_fields_set - _OF_GATES)
        if written or not guard.gates:
            raise mistake_at(
                ("pre_guard", *written[:1]),
                "no request reaches the preview before the switch: give testers a preview_header"
                + (", or leave this to gates" if written else ", or the guard gates"),
            )
        measured = [row[0] for row in guard.rates()] + [row[0] for row in guard.quantiles()]
        nothing: dict[str, Any] = {**dict.fromkeys(measured), "burst": None, "min_requests": 0}
        return guard.model_copy(update=nothing)

    def variants(self) -> tuple[Variant, ...]:
        return at_rest(self.active, self.preview)

    def build(self, scope: Scope) -> Assignment:
        override = None
        if self.preview_header is not None:
            override = Override(header=self.preview_header, allow_from=self.allow_from)
        return Weighted(
            variants=replaced(self.variants(), scope.weights),
            sticky=self.sticky,
            override=override,
            words={"always": self.preview, "true": self.preview, "never": self.active},
        ).build(scope)

    def fallback(self, variant: str) -> str | None:
        return self.active if variant == self.preview else None

    def rollout(self, pools: Pools) -> Plan | None:
        parts = range(1, PARTS) if self.over else ()
        return Plan(
            old=self.active,
            new=self.preview,
            rest=stage(self.active, self.preview, 0.0),
            steps=tuple(
                Step(stage(self.active, self.preview, part / PARTS), self.over / PARTS)
                for part in parts
            ),
            final=Step(stage(self.active, self.preview, 1.0)),
            needs_one_up=(self.preview,),
            bake_s=self.bake,
            bakes_switched=True,
            starts_by_itself=self.start == "auto",
            can_switch=True,
            weight_max=1.0,
            ready_timeout_s=self.ready_timeout,
            keep_s=self.keep,
            guard=self._guard(),
            pre_guard=self._pre_guard(),
            edit=edit(self.preview),
        )

    def warnings(self) -> tuple[str, ...]:
        is_free = self.over and self.guard is None
        return (by_the_clock("the switch over time has"),) if is_free else ()
