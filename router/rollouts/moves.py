"""The moves of a rollout: from step to step, to the bake, to the end, and back.

`engine.py` decides by measurements when a move is made, `actions.py` at a person's word. Here
stands what each move does, and nothing of when. Rules:

1. A step back is made by `back`, `step_back` and `fail` only.
2. Each move begins its step anew: no hold, wait, push or weight set by hand outlives it.
3. Each move is one event. Who routes it fills in the route and the generation.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from router.rollouts.plan import Place, Plan, Stage, Step
from router.rollouts.state import Action, Event, Inputs, Pause, Phase, State
from router.units import format_duration, format_share

ITSELF: Final = "pointsman"
"""Who makes a step that no person asked for."""
_NAMED_MAX: Final = 3
"""Endpoints named in one sentence."""

_FRESH: Final[Mapping[str, Any]] = {
    "held_s": 0.0,
    "waited_s": 0.0,
    "unready_s": 0.0,
    "in_step": 0,
    "manual": None,
    "pause": None,
    "is_pushed": False,
}
"""What every move puts back."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What comes of one turn: the state to keep, what to say of it, or what is already so."""

    state: State
    events: tuple[Event, ...]
    note: str = ""


def stage(plan: Plan, state: State) -> Stage:
    """How traffic must stand now."""
    at = _stage_at(plan, state)
    return at if state.manual is None else replace(at, weights=dict(state.manual))


def _stage_at(plan: Plan, state: State) -> Stage:
    """How it stands without what a person set. While it bakes at the last step, as at that."""
    if state.step < 0:
        return plan.rest
    if state.step < len(plan.steps):
        return plan.steps[state.step].stage
    is_final = state.phase is Phase.PROMOTED or state.is_reversing or bakes_at_final(plan)
    return plan.final.stage if is_final else plan.steps[-1].stage


def bakes_at_final(plan: Plan) -> bool:
    """Whether all traffic has moved before it bakes."""
    return plan.bakes_switched or not plan.steps


def standing(plan: Plan, state: State) -> dict[str, Any]:
    """What the audit log says of a moment: phase, step and weights."""
    return {
        "phase": state.phase.value,
        "step": state.step,
        "weights": dict(stage(plan, state).weights),
    }


def place(plan: Plan, state: State) -> str:
    """Where it is, for sentences: `step 2 of 4 (25%)`."""
    if state.step < 0:
        return "the start"
    if state.step == len(plan.steps):
        return "the bake" if state.phase is not Phase.PROMOTED else "the end"
    share = format_share(stage(plan, state).weights.get(plan.new, 0.0))
    return f"step {state.step + 1} of {len(plan.steps)} ({share})"


def hold_s(plan: Plan, state: State) -> float:
    """How long the step in force, or the bake, is held."""
    return plan.bake_s if state.step == len(plan.steps) else plan.steps[state.step].hold_s


@dataclass(frozen=True, slots=True)
class Needs:
    """What must hold before a move is made."""

    up: frozenset[Place] = frozenset()
    idle: frozenset[Place] = frozenset()
    one_up: tuple[str, ...] = ()

    def missing(self, inputs: Inputs) -> str:
        """What does not hold yet, as a part of a sentence; empty when everything does."""
        down = sorted(self.up - inputs.up)
        busy = sorted(where for where in self.idle if inputs.in_flight.get(where) != 0)
        alive = {backend for backend, _ in inputs.up}
        none_up = [variant for variant in self.one_up if variant not in alive]
        parts = [f"an endpoint of {' and '.join(none_up)} to be healthy"] if none_up else []
        if down:
            parts.append(f"{_named(down)} to be healthy")
        if busy:
            parts.append(f"{_named(busy)} to finish what is in flight")
        return ", ".join(parts)


def _named(places: list[Place]) -> str:
    shown = ", ".join(f"{url} of {backend}" for backend, url in places[:_NAMED_MAX])
    return f"{shown} and {len(places) - _NAMED_MAX} more" if len(places) > _NAMED_MAX else shown


def needs_ahead(plan: Plan, state: State) -> Needs:
    """What the next move needs."""
    to = state.step + 1
    if to < len(plan.steps):
        ahead = [plan.steps[to]]
    elif to == len(plan.steps):
        ahead = [plan.final] if bakes_at_final(plan) or not plan.bake_s else []
    else:
        ahead = [] if bakes_at_final(plan) else [plan.final]
    return _united(plan, state, ahead)


def needs_to_the_end(plan: Plan, state: State) -> Needs:
    """What all moves that remain need together."""
    return _united(plan, state, [*plan.steps[state.step + 1 :], plan.final])


def needs_behind(plan: Plan, state: State) -> Needs:
    """What a step back needs: that the endpoints which go back in are up."""
    behind = _stage_at(plan, replace(state, step=state.step - 1))
    return Needs(up=_stage_at(plan, state).idle - behind.idle)


def _united(plan: Plan, state: State, steps: Iterable[Step]) -> Needs:
    steps = list(steps)
    return Needs(
        frozenset().union(*(step.needs_up for step in steps)),
        frozenset().union(*(step.needs_idle for step in steps)),
        plan.needs_one_up if state.step < 0 else (),
    )


@dataclass(slots=True)
class Walk:
    """The moves of one turn: the state as it is by now, and an event of each."""

    plan: Plan
    state: State
    now_s: float
    by: str = ITSELF
    events: list[Event] = field(default_factory=list)

    def turn(self, note: str = "") -> Turn:
        """All of it as a value."""
        return Turn(self.state, tuple(self.events), note)

    def record(self, kind: str, reason: str, **changes: Any) -> None:
        """Change the state and log that as one event."""
        before = self.state
        self.state = replace(before, reason=reason, **changes)
        if (before.phase, before.step) != (self.state.phase, self.state.step):
            self.state = replace(self.state, at_s=self.now_s)
        said = (standing(self.plan, before), standing(self.plan, self.state))
        self.events.append(Event("", kind, self.by, self.now_s, reason, 0, *said))

    def note(self, **changes: Any) -> None:
        """Change the state without a word: what only counts, and why it waits."""
        self.state = replace(self.state, **changes)

    def forward(self) -> None:
        """Make the next move; its needs hold."""
        to = self.state.step + 1
        if to < len(self.plan.steps):
            self._enter(to)
        elif to == len(self.plan.steps) and self.plan.bake_s:
            self._bake()
        else:
            self.promote()

    def arrive(self) -> None:
        """Move all traffic at once; all needs hold."""
        is_on_the_way = self.state.step < len(self.plan.steps)
        if is_on_the_way and self.plan.bake_s and bakes_at_final(self.plan):
            self._bake()
        else:
            self.promote()

    def _enter(self, step: int) -> None:
        move = {**_FRESH, "step": step, "phase": Phase.PROGRESSING}
        at = place(self.plan, replace(self.state, **move))
        said = f"{at}: held for {format_duration(self.plan.steps[step].hold_s)}"
        if self.plan.steps[step].stage.is_held:
            said = f"{at}: arriving requests are held"
        self.record("step", said, **move)

    def _bake(self) -> None:
        share = self.plan.final.stage if bakes_at_final(self.plan) else self.plan.steps[-1].stage
        self.record(
            "baking",
            f"baking for {format_duration(self.plan.bake_s)}: {self.plan.new} has "
            f"{format_share(share.weights.get(self.plan.new, 0.0))} of the traffic",
            **{**_FRESH, "step": len(self.plan.steps), "phase": Phase.BAKING},
            is_switching=False,
        )

    def promote(self) -> None:
        """All traffic is the new variant's; the rollout is over."""
        kept = f"; a rollback is taken for {format_duration(self.plan.keep_s)}"
        self.record(
            "promoted",
            f"{self.plan.new} has all traffic{kept if self.plan.keep_s else ''}",
            **{**_FRESH, "step": len(self.plan.steps), "phase": Phase.PROMOTED},
            is_switching=False,
        )

    def pause(self, kind: str, why: Pause, reason: str) -> None:
        """Stay until a person says otherwise. What a person asked before is off."""
        self.record(
            kind, reason, phase=Phase.PAUSED, pause=why, is_pushed=False, is_switching=False
        )

    def back(self, reason: str) -> None:
        """Back to where all traffic is the old variant's: in one jump, or on the way there."""
        if self.state.step < 0 or not self.plan.reverses:
            self._rest(Phase.ROLLED_BACK, reason)
            return
        last = len(self.plan.steps) - 1
        bakes_on_the_way = self.state.phase is not Phase.PROMOTED and not bakes_at_final(self.plan)
        self.record(
            Action.ROLLBACK.value,
            f"on its way back to {self.plan.old}, step by step: {reason}",
            **{
                **_FRESH,
                "step": min(self.state.step, last) if bakes_on_the_way else self.state.step,
            },
            phase=Phase.PROGRESSING,
            is_reversing=True,
            is_switching=False,
        )

    def step_back(self, aside: str = "") -> None:
        """One step of a rollback that walks. The wait for endpoints is counted over all of it."""
        to = self.state.step - 1
        if to < 0:
            self._rest(Phase.ROLLED_BACK, f"all traffic is {self.plan.old}'s again{aside}")
            return
        move = {**_FRESH, "step": to, "unready_s": self.state.unready_s}
        at = place(self.plan, replace(self.state, **move))
        self.record("step", f"on its way back: {at}{aside}", **move)

    def fail(self, reason: str) -> None:
        """It is over without having begun."""
        self._rest(Phase.FAILED, reason)

    def _rest(self, phase: Phase, reason: str) -> None:
        self.record(
            phase.value,
            reason,
            **{**_FRESH, "step": -1, "phase": phase},
            is_reversing=False,
            is_switching=False,
        )
