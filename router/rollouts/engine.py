"""The engine of every rollout: what the next turn makes of what was measured. Pure.

`advance` is called a few times a second. One turn makes at most one move (`moves.py`):

1. A guard that says `fail` takes the rollout back, whatever else it was about to do.
2. Otherwise the function of its phase decides (`_TURNS`). A step is left when it was held for long
   enough, the guard passes, its gate is open, and what the next one needs is there.
3. What a person asked is in the state (`actions.py`): `is_pushed` and `is_switching` skip the
   hold, the gate and the evidence, never the needs.

Time is counted from turn to turn (`Inputs.elapsed_s`), so it stands still while nothing runs.
"""

from collections.abc import Callable, Mapping
from typing import Final

from router.rollouts.actions import Refused, act, starters
from router.rollouts.kept import dump, restore
from router.rollouts.moves import (
    Turn,
    Walk,
    hold_s,
    needs_ahead,
    needs_behind,
    needs_to_the_end,
    place,
    stage,
    standing,
)
from router.rollouts.options import Guard
from router.rollouts.plan import Plan
from router.rollouts.state import Action, Inputs, Outcome, Pause, Phase, State, Verdict
from router.units import format_duration

__all__ = [
    "Action",
    "Refused",
    "Turn",
    "act",
    "advance",
    "begin",
    "dump",
    "place",
    "restore",
    "stage",
    "standing",
]


def begin(plan: Plan, now_s: float) -> Turn:
    """A rollout that has not begun to move traffic."""
    walk = Walk(plan, State(), now_s)
    waits = "" if plan.starts_by_itself else f"; it waits for a person: {starters(plan)}"
    walk.record(
        "started",
        f"rollout from {plan.old} to {plan.new}{waits}",
        phase=Phase.PENDING,
        is_started=plan.starts_by_itself,
    )
    return walk.turn()


def advance(plan: Plan, state: State, inputs: Inputs) -> Turn:
    """One turn: count the time, and make the move that is due."""
    walk = Walk(plan, state, inputs.now_s)
    if state.step >= 0 and state.phase in _GOING:
        walk.note(in_step=state.in_step + inputs.requests)
    if state.is_reversing:
        _reverse(walk, inputs)
    elif (failed := _failed(state, inputs)) is not None:
        _stop(walk, inputs, failed.reason)
    else:
        _TURNS[state.phase](walk, inputs)
    return walk.turn()


_GOING: Final = frozenset({Phase.PENDING, Phase.PROGRESSING, Phase.PAUSED, Phase.BAKING})
"""Phases in which guards judge."""


def _failed(state: State, inputs: Inputs) -> Verdict | None:
    """The verdict that ends the rollout: of `pre_guard` before the first step, else of `guard`."""
    verdict = inputs.pre_verdict if state.step < 0 else inputs.verdict
    is_failed = verdict is not None and verdict.outcome is Outcome.FAIL
    return verdict if is_failed and state.phase in _GOING else None


def _stop(walk: Walk, inputs: Inputs, reason: str) -> None:
    """Fail before the first step, go back later."""
    if walk.state.step < 0:
        walk.fail(reason)
        return
    if not any(backend == walk.plan.old for backend, _ in inputs.up):
        reason += f" (no endpoint of {walk.plan.old} is healthy either)"
    walk.back(f"at {place(walk.plan, walk.state)}: {reason}")


def _pending(walk: Walk, inputs: Inputs) -> None:
    """Wait to be started, then for the needs of the first step, then for `pre_guard`."""
    if not walk.state.is_started:
        return
    if walk.state.is_switching:
        _switch(walk, inputs)
    elif _is_ready(walk, inputs) and (
        walk.state.is_pushed
        or _has_evidence(walk, inputs, walk.plan.pre_guard, inputs.pre_verdict, inputs.elapsed_s)
    ):
        walk.forward()


def _progress(walk: Walk, inputs: Inputs) -> None:
    """Hold the step, or the bake; then evidence; then the gate; then the needs of the next."""
    spare_s = _hold(walk, inputs.elapsed_s)
    if walk.state.is_switching:
        _switch(walk, inputs)
        return
    if not walk.state.is_pushed:
        is_blind = stage(walk.plan, walk.state).is_held  # nothing is answered, so nothing is judged
        guard = None if is_blind else walk.plan.guard
        if walk.state.held_s < hold_s(walk.plan, walk.state):
            return
        if not _has_evidence(walk, inputs, guard, inputs.verdict, spare_s):
            return
        if _is_gated(walk):
            at = place(walk.plan, walk.state)
            walk.pause("paused", Pause.GATE, f"{at} is over and passed: waits for promote")
            return
    if _is_ready(walk, inputs):
        walk.forward()


def _is_gated(walk: Walk) -> bool:
    step, steps = walk.state.step, walk.plan.steps
    return 0 <= step < len(steps) and steps[step].is_gated


def _hold(walk: Walk, elapsed_s: float) -> float:
    """Count the hold. Returns the seconds of this turn that lie beyond it."""
    used_s = min(elapsed_s, hold_s(walk.plan, walk.state) - walk.state.held_s)
    walk.note(held_s=walk.state.held_s + used_s)
    return elapsed_s - used_s


def _has_evidence(
    walk: Walk, inputs: Inputs, guard: Guard | None, verdict: Verdict | None, spare_s: float
) -> bool:
    """Whether the guard lets it go on. One that cannot say is waited for, then its rule is obeyed.

    `spare_s`: the seconds of this turn that count as waiting.
    """
    if guard is None or (verdict is not None and verdict.outcome is Outcome.PASS):
        return True
    why = "nothing is measured yet" if verdict is None else verdict.reason
    walk.note(waited_s=walk.state.waited_s + spare_s, reason=f"waits for evidence: {why}")
    if walk.state.waited_s < guard.max_wait:
        return False
    waited = f"no verdict after waiting for {format_duration(guard.max_wait)}: {why}"
    if guard.on_inconclusive == "promote":
        # pushed, so that the wait for the next needs does not ask again; a gate takes that back
        walk.record("inconclusive", f"{waited}; goes on", is_pushed=True)
        return True
    if guard.on_inconclusive == "rollback":
        walk.record("inconclusive", waited)
        _stop(walk, inputs, waited)
    else:
        walk.pause("inconclusive", Pause.EVIDENCE, f"{waited}; waits for promote or rollback")
    return False


def _is_ready(walk: Walk, inputs: Inputs) -> bool:
    """Whether the needs of the next move hold. Waiting for them too long ends the rollout."""
    return _waits_for(walk, inputs, needs_ahead(walk.plan, walk.state).missing(inputs))


def _waits_for(walk: Walk, inputs: Inputs, missing: str) -> bool:
    if not missing:
        return True
    limit_s = walk.plan.ready_timeout_s
    walk.note(unready_s=walk.state.unready_s + inputs.elapsed_s, reason=f"waits for {missing}")
    if walk.state.unready_s >= limit_s:
        _stop(walk, inputs, f"waited {format_duration(limit_s)} in vain for {missing}")
    return False


def _switch(walk: Walk, inputs: Inputs) -> None:
    """Straight to the end when everything is ready for it, else the next step that is."""
    missing = needs_to_the_end(walk.plan, walk.state).missing(inputs)
    if not missing:
        move = walk.promote if walk.state.is_pushed else walk.arrive  # promoted in the last step
        move()
    elif not needs_ahead(walk.plan, walk.state).missing(inputs):
        walk.forward()
    else:
        _waits_for(walk, inputs, missing)


def _paused(walk: Walk, inputs: Inputs) -> None:
    """Nothing is due until a person says so; the hold stands still."""


def _promoted(walk: Walk, inputs: Inputs) -> None:
    """Count the time in which a rollback is taken."""
    walk.note(held_s=min(walk.plan.keep_s, walk.state.held_s + inputs.elapsed_s))


def _over(walk: Walk, inputs: Inputs) -> None:
    """Nothing happens any more."""


_TURNS: Final[Mapping[Phase, Callable[[Walk, Inputs], None]]] = {
    Phase.PENDING: _pending,
    Phase.PROGRESSING: _progress,
    Phase.PAUSED: _paused,
    Phase.BAKING: _progress,
    Phase.PROMOTED: _promoted,
    Phase.ROLLED_BACK: _over,
    Phase.FAILED: _over,
}


def _reverse(walk: Walk, inputs: Inputs) -> None:
    """One step back, once the endpoints that go back in are up, or were waited for in vain."""
    missing = needs_behind(walk.plan, walk.state).missing(inputs)
    if missing and walk.state.unready_s < walk.plan.ready_timeout_s:
        unready_s = walk.state.unready_s + inputs.elapsed_s
        walk.note(unready_s=unready_s, reason=f"on its way back, waits for {missing}")
    else:
        walk.step_back(f" (waited in vain for {missing})" if missing else "")
