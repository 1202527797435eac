"""What people do to a rollout: promote, roll back, pause, resume, set weights, switch. Pure.

A person knows no more than the state of a moment ago, so:

1. What is so already changes nothing and says what is so: a command can be repeated.
2. What would undo what happened meanwhile is refused: a late `promote` or `resume` never starts
   what was rolled back. Nor does `resume` start what never was: only `promote` and `switch` do, so
   a script that pauses and resumes moves nothing that waits for a person.
3. Whatever a person says, a move is made only when what it needs is there. What needs nothing is
   done at once, else it is noted (`is_pushed`, `is_switching`) and the engine's turns do it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Final

from router.rollouts.moves import (
    Needs,
    Turn,
    Walk,
    bakes_at_final,
    needs_ahead,
    needs_to_the_end,
    place,
    stage,
)
from router.rollouts.plan import Plan
from router.rollouts.state import Action, Pause, Phase, State
from router.units import format_duration, format_share

_SUM_TOLERANCE: Final = 1e-6
"""How far weights may be from 1 in sum."""


class Refused(Exception):
    """The action makes no sense now; the text says why, and what would."""


def act(
    plan: Plan,
    state: State,
    action: Action,
    *,
    by: str,
    reason: str,
    now_s: float,
    weights: Mapping[str, float] | None = None,
) -> Turn:
    """Do what a person asks. What is so already returns a `note` of that, and no event.

    Raises:
        Refused: it makes no sense now, or the weights are not allowed.
    """
    walk = Walk(plan, state, now_s, by)
    if note := _already(plan, state, action, weights):
        return walk.turn(note)
    _refuse(plan, state, action)
    if action is Action.WEIGHTS:
        _set_weights(walk, _said(walk, "weights set", reason), weights or {})
    else:
        verb, do = _ACTIONS[action]
        do(walk, _said(walk, verb, reason))
    return walk.turn()


def _said(walk: Walk, verb: str, reason: str) -> str:
    return f"{verb} by {walk.by}: {reason}" if reason else f"{verb} by {walk.by}"


def _already(plan: Plan, state: State, action: Action, weights: Mapping[str, float] | None) -> str:
    """What is so already, as a sentence; empty when the action would change something."""
    phase = state.phase
    is_going = phase in (Phase.PROGRESSING, Phase.BAKING) and not state.is_reversing
    is_begun = phase is Phase.PENDING and state.is_started
    since = f": {state.reason}" if state.reason else ""
    match action:
        case Action.ROLLBACK if state.is_reversing:
            return f"it is on its way back already{since}"
        case Action.ROLLBACK if phase in (Phase.ROLLED_BACK, Phase.FAILED):
            return _is_already(_PHRASES[phase], state.reason)
        case Action.PROMOTE | Action.SWITCH | Action.RESUME if phase is Phase.PROMOTED:
            return _is_already(_PHRASES[phase], state.reason)
        case Action.PROMOTE if state.is_pushed:
            return f"it was told to go on already{since}"
        case Action.SWITCH if state.is_switching:
            return f"it was told to switch already{since}"
        case Action.SWITCH if _has_all(plan, state):
            return f"all traffic is {plan.new}'s already{since}"
        case Action.PAUSE if phase is Phase.PENDING and not state.is_started:
            return "it waits for a person already: it was not started"
        case Action.PAUSE if phase is Phase.PAUSED:
            return _is_already("paused", state.reason)
        case Action.RESUME if phase is Phase.PENDING and not state.is_started:
            return f"it was not started: use {starters(plan)}"
        case Action.RESUME if is_going or is_begun:
            return f"it is going on already, at {place(plan, state)}{since}"
        case Action.WEIGHTS if weights is not None and weights == state.manual:
            return f"the weights are these already{since}"
    return ""


def _is_already(phrase: str, reason: str) -> str:
    """`reason` need not say it again: it is rolled back already, by ann."""
    if reason.startswith(phrase):
        return f"it is {phrase} already,{reason.removeprefix(phrase)}"
    return f"it is {phrase} already" + (f": {reason}" if reason else "")


def _because(phrase: str, reason: str) -> str:
    return reason if reason.startswith(phrase) else f"{phrase} ({reason})"


def starters(plan: Plan) -> str:
    """The actions that start a rollout which waits for a person, as text."""
    return "promote or switch" if plan.can_switch else "promote"


_PHRASES: Final[Mapping[Phase, str]] = {
    Phase.PROMOTED: "promoted",
    Phase.ROLLED_BACK: "rolled back",
    Phase.FAILED: "failed",
}
"""Phases in which it is over, as people say it."""


def _has_all(plan: Plan, state: State) -> bool:
    """Whether all traffic has moved, and it bakes."""
    return state.step == len(plan.steps) and bakes_at_final(plan)


def _refuse(plan: Plan, state: State, action: Action) -> None:
    """Raise `Refused` where the action makes no sense."""
    if state.is_reversing:
        raise Refused(f"the rollout is on its way back to {plan.old}: {action} is not possible now")
    if state.phase is Phase.PROMOTED and action is Action.ROLLBACK:
        _refuse_late_rollback(plan, state)
    elif state.phase in _PHRASES:
        raise Refused(
            f"the rollout is over, it was {_because(_PHRASES[state.phase], state.reason)}. "
            "It starts over when the policy is edited; to try the same again, change its revision"
        )
    if action is Action.SWITCH and not plan.can_switch:
        raise Refused(f"{plan.new} takes over step by step here: use promote, not switch")
    if action is Action.PAUSE and stage(plan, state).is_held:
        raise Refused(
            "requests are being held, a pause would keep them waiting: use rollback, or wait"
        )


def _refuse_late_rollback(plan: Plan, state: State) -> None:
    if plan.keep_s <= 0:
        raise Refused(f"{plan.new} is promoted, and keep is 0: edit the policy to go back")
    if state.held_s >= plan.keep_s:
        raise Refused(
            f"{plan.new} was promoted more than {format_duration(plan.keep_s)} (keep) ago: "
            "edit the policy to go back"
        )


def _promote(walk: Walk, said: str) -> None:
    """Start; or go through the gate; or skip the rest of the step; in the last one, the end."""
    plan, state = walk.plan, walk.state
    if not state.is_started:
        walk.record(Action.PROMOTE.value, said, phase=Phase.PENDING, pause=None, is_started=True)
        return
    is_last = state.step >= max(0, len(plan.steps) - 1) and state.pause is not Pause.GATE
    _unpause(walk, Action.PROMOTE, said, is_pushed=True, is_switching=is_last)
    if is_last:
        _go(walk, needs_to_the_end(plan, state), walk.promote)
    else:
        _go(walk, needs_ahead(plan, state), walk.forward)


def _go(walk: Walk, needs: Needs, move: Callable[[], None]) -> None:
    """Make the move at once when it needs nothing; the engine's next turns look for the rest."""
    if needs == Needs():
        move()


def _unpause(walk: Walk, action: Action, said: str, **changes: bool) -> None:
    """Back into the phase that was paused, or on in the one that is."""
    step = walk.state.step
    phase = Phase.PROGRESSING if step < len(walk.plan.steps) else Phase.BAKING
    walk.record(
        action.value,
        said,
        phase=Phase.PENDING if step < 0 else phase,
        pause=None,
        manual=None,
        waited_s=0.0,
        **changes,
    )


def _resume(walk: Walk, said: str) -> None:
    """Go on from a pause: through a gate, or with as long a wait for evidence again."""
    is_at_gate = walk.state.pause is Pause.GATE
    _unpause(walk, Action.RESUME, said, is_pushed=is_at_gate)
    if is_at_gate:
        _go(walk, needs_ahead(walk.plan, walk.state), walk.forward)


def _pause(walk: Walk, said: str) -> None:
    walk.pause(Action.PAUSE.value, Pause.PERSON, said)


def _switch(walk: Walk, said: str) -> None:
    _unpause(walk, Action.SWITCH, said, is_started=True, is_switching=True)
    _go(walk, needs_to_the_end(walk.plan, walk.state), walk.arrive)


def _roll_back(walk: Walk, said: str) -> None:
    if walk.state.step < 0 or not walk.plan.reverses:
        walk.record(Action.ROLLBACK.value, said)
    walk.back(said)


_ACTIONS: Final[Mapping[Action, tuple[str, Callable[[Walk, str], None]]]] = {
    Action.PROMOTE: ("told to go on", _promote),
    Action.ROLLBACK: ("rolled back", _roll_back),
    Action.PAUSE: ("paused", _pause),
    Action.RESUME: ("resumed", _resume),
    Action.SWITCH: ("told to switch", _switch),
}


def _set_weights(walk: Walk, said: str, weights: Mapping[str, float]) -> None:
    plan, state = walk.plan, walk.state
    if state.step < 0:
        raise Refused("the rollout has not begun: weights can be set from its first step on")
    if _has_all(plan, state):
        raise Refused(f"{plan.new} has all traffic: use rollback or promote")
    if any(step.stage.idle or step.stage.is_held for step in (*plan.steps, plan.final)):
        raise Refused("this rollout moves endpoints, not shares: weights cannot be set")
    if not weights or not weights.keys() <= {plan.old, plan.new}:
        unknown = sorted(weights.keys() - {plan.old, plan.new})
        raise Refused(
            f"weights are of {plan.old} and {plan.new}"
            + (f", {', '.join(unknown)} takes no part" if unknown else ": give at least one")
        )
    given = _completed(plan, weights)
    if not all(0.0 <= share <= 1.0 for share in given.values()):
        raise Refused("each weight is between 0% and 100%")
    if not math.isclose(sum(given.values()), 1.0, abs_tol=_SUM_TOLERANCE):
        raise Refused(f"weights sum to {format_share(sum(given.values()))}, expected 100%")
    if given[plan.new] > plan.weight_max:
        raise Refused(
            f"{plan.new} gets no more than {format_share(plan.weight_max)} before it is promoted, "
            f"not {format_share(given[plan.new])}"
        )
    walk.record(
        Action.WEIGHTS.value,
        said,
        phase=Phase.PAUSED,
        pause=Pause.PERSON,
        manual=given,
        is_pushed=False,
        is_switching=False,
    )


def _completed(plan: Plan, weights: Mapping[str, float]) -> dict[str, float]:
    """Both variants' shares: of one that is not given, what the other leaves."""
    if len(weights) == 2:
        return dict(weights)
    [(name, share)] = weights.items()
    other = plan.old if name == plan.new else plan.new
    return {name: share, other: 1.0 - share}
