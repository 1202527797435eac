"""What people do to a rollout, in every phase."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from router.rollouts import engine
from router.rollouts.plan import Plan
from router.rollouts.state import Action, Phase
from tests.rollouts.plans import (
    ALL,
    FAIL,
    NEW,
    OLD,
    PASS,
    UNSURE,
    Drive,
    blue_green,
    canary,
    guard,
    recreate,
    rolling,
    share,
)


def progressing() -> Drive:
    drive = Drive(canary(bake_s=30.0, guard=guard()), verdict=PASS)
    drive.run(3)
    return drive


def test_promote_skips_the_rest_of_the_hold() -> None:
    drive = progressing()
    turn = drive.act(Action.PROMOTE, "looks good")
    assert (drive.state.step, drive.state.held_s) == (1, 0.0)
    asked, stepped = turn.events
    assert (asked.kind, asked.by) == ("promote", "ann")
    assert asked.reason == "told to go on by ann: looks good"
    assert (stepped.kind, stepped.after["weights"]) == ("step", share(0.25))


def test_promote_skips_the_evidence_too() -> None:
    drive = progressing()
    drive.verdict = UNSURE
    drive.run(10)
    drive.act(Action.PROMOTE)
    assert drive.state.step == 1


@pytest.mark.parametrize("phase", [Phase.PROGRESSING, Phase.BAKING])
def test_promote_in_the_last_step_or_the_bake_is_promotion_at_once(phase: Phase) -> None:
    drive = progressing()
    while drive.state.step < 2:
        drive.turn()
    drive.until(phase)
    drive.act(Action.PROMOTE)
    assert (drive.state.phase, drive.new_share) == (Phase.PROMOTED, 1.0)


def test_a_promotion_waits_for_what_it_needs() -> None:
    drive = Drive(rolling())
    drive.run(6)
    assert drive.state.step == 1
    drive.in_flight = {}
    drive.up = frozenset()
    drive.act(Action.PROMOTE)
    assert drive.state.phase is Phase.PROMOTED  # the last step needs nothing more

    drive = Drive(rolling(), up=frozenset({*OLD, NEW[0]}))
    drive.turn()
    drive.act(Action.PROMOTE)
    assert drive.state.step == 0
    assert "already" in drive.act(Action.PROMOTE).note
    drive.run(3)
    assert drive.state.reason == "waits for http://n2 of new to be healthy"
    drive.up = ALL
    drive.turn()
    assert drive.state.step == 1


def test_promote_while_requests_are_held_skips_the_bake_but_not_the_needs() -> None:
    drive = Drive(recreate(), up=frozenset(OLD))
    drive.turn()
    drive.act(Action.PROMOTE)
    drive.turn()
    assert engine.stage(drive.plan, drive.state).is_held
    drive.up = frozenset(NEW)
    drive.turn()
    assert drive.state.phase is Phase.PROMOTED


def test_pause_stops_the_hold_and_resume_goes_on_with_it() -> None:
    drive = progressing()
    drive.act(Action.PAUSE, "lunch")
    assert drive.state.reason == "paused by ann: lunch"
    drive.run(100)
    assert (drive.state.phase, drive.state.held_s, drive.new_share) == (Phase.PAUSED, 2.0, 0.1)
    drive.act(Action.RESUME)
    drive.run(7)
    assert (drive.state.step, drive.state.held_s) == (0, 9.0)


def test_a_bake_that_was_paused_goes_on_as_a_bake() -> None:
    drive = progressing()
    drive.until(Phase.BAKING)
    drive.act(Action.PAUSE)
    drive.restart()
    drive.act(Action.RESUME)
    assert drive.state.phase is Phase.BAKING


def test_a_pause_before_the_first_step_keeps_it_from_beginning() -> None:
    drive = Drive(canary())
    drive.act(Action.PAUSE)
    drive.run(100)
    assert (drive.state.phase, drive.state.step) == (Phase.PAUSED, -1)
    drive.act(Action.RESUME)
    drive.turn()
    assert drive.state.step == 0


def test_weights_replace_those_of_the_step_until_it_is_resumed() -> None:
    drive = progressing()
    drive.act(Action.WEIGHTS, "fewer", new=0.05)
    assert engine.stage(drive.plan, drive.state).weights == {"new": 0.05, "old": 0.95}
    assert drive.state.phase is Phase.PAUSED
    drive.run(50)
    assert drive.state.step == 0
    drive.act(Action.RESUME)
    assert drive.new_share == 0.1


def test_resume_at_a_gate_goes_through_it_though_the_next_step_is_not_ready_yet() -> None:
    first, second, third = canary().steps
    steps = (replace(first, is_gated=True), replace(second, needs_up=frozenset(NEW)), third)
    drive = Drive(canary(steps=steps), up=frozenset({*OLD, NEW[0]}))
    drive.until(Phase.PAUSED)
    drive.act(Action.RESUME)
    drive.run(5)
    assert (drive.state.phase, drive.state.step) == (Phase.PROGRESSING, 0)
    drive.up = ALL
    drive.turn()
    assert drive.state.step == 1


def test_weights_set_by_hand_take_back_a_promotion_that_is_still_waiting() -> None:
    plan = canary(0.5)
    drive = Drive(replace(plan, final=replace(plan.final, needs_up=frozenset(NEW))))
    drive.up = frozenset({*OLD, NEW[0]})
    drive.turn()
    drive.act(Action.PROMOTE)
    drive.turn()
    drive.act(Action.WEIGHTS, new=0.2)
    drive.act(Action.RESUME)
    drive.up = ALL
    drive.turn()
    assert drive.state.phase is Phase.PROGRESSING


def test_weights_set_by_hand_do_not_outlive_a_rollback_or_a_step() -> None:
    drive = progressing()
    drive.act(Action.WEIGHTS, new=0.4)
    drive.act(Action.PROMOTE)
    assert (drive.state.step, drive.new_share) == (1, 0.25)
    drive.act(Action.WEIGHTS, new=0.4)
    drive.verdict = FAIL
    drive.turn()
    assert (drive.state.phase, drive.state.pause, drive.new_share) == (Phase.ROLLED_BACK, None, 0.0)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"new": 0.6}, "new gets no more than 50% before it is promoted, not 60%"),
        ({"new": 0.3, "old": 0.3}, "weights sum to 60%, expected 100%"),
        ({"new": 0.3, "odd": 0.7}, "weights are of old and new, odd takes no part"),
        ({"new": -0.1}, "each weight is between 0% and 100%"),
        ({}, "give at least one"),
    ],
)
def test_weights_that_are_not_allowed_are_refused(weights: dict[str, float], said: str) -> None:
    drive = progressing()
    with pytest.raises(engine.Refused, match=said):
        drive.act(Action.WEIGHTS, **weights)


def test_weights_are_refused_where_there_are_no_shares_to_set() -> None:
    with pytest.raises(engine.Refused, match="has not begun"):
        Drive(canary()).act(Action.WEIGHTS, new=0.1)
    drive = Drive(rolling())
    drive.turn()
    with pytest.raises(engine.Refused, match="moves endpoints, not shares"):
        drive.act(Action.WEIGHTS, new=0.1)
    drive = Drive(blue_green())
    drive.until(Phase.BAKING)
    with pytest.raises(engine.Refused, match="new has all traffic"):
        drive.act(Action.WEIGHTS, new=0.1)


def test_a_canary_is_promoted_not_switched() -> None:
    with pytest.raises(engine.Refused, match="use promote, not switch"):
        progressing().act(Action.SWITCH)


def test_switch_goes_straight_to_the_end_and_bakes_there() -> None:
    steps = canary().steps
    drive = Drive(blue_green(steps=steps, starts_by_itself=False), up=frozenset(OLD))
    drive.act(Action.SWITCH)
    drive.turn()
    assert drive.state.phase is Phase.PENDING
    drive.up = ALL
    drive.turn()
    assert (drive.state.phase, drive.new_share) == (Phase.BAKING, 1.0)
    assert drive.act(Action.SWITCH).note.startswith("all traffic is new's already")


def test_switch_of_a_rolling_takes_what_is_ready_and_waits_for_the_rest() -> None:
    drive = Drive(rolling(), up=frozenset({*OLD, NEW[0]}), in_flight={OLD[0]: 1})
    drive.act(Action.SWITCH)
    drive.run(3)
    assert drive.state.step == 0
    drive.up = ALL
    drive.in_flight = {OLD[0]: 0}
    drive.turn()
    assert drive.state.phase is Phase.PROMOTED


def test_switch_of_a_recreate_still_drains_and_waits() -> None:
    drive = Drive(recreate(starts_by_itself=False), in_flight={})
    drive.act(Action.SWITCH)
    drive.run(3)
    assert engine.stage(drive.plan, drive.state).is_held
    drive.in_flight = dict.fromkeys(OLD, 0)
    drive.turn()
    assert drive.state.phase is Phase.BAKING


def test_requests_that_are_held_are_not_kept_waiting_by_a_pause() -> None:
    drive = Drive(recreate(), up=frozenset(OLD))
    drive.turn()
    with pytest.raises(engine.Refused, match="use rollback, or wait"):
        drive.act(Action.PAUSE)


def test_a_person_calls_it_off_before_it_began() -> None:
    drive = Drive(canary(), up=frozenset(OLD))
    drive.act(Action.ROLLBACK, "wrong model")
    assert drive.state.phase is Phase.ROLLED_BACK
    assert drive.state.reason == "rolled back by ann: wrong model"
    assert drive.kinds == ["started", "rollback", "rolled_back"]


def test_what_would_walk_back_has_nowhere_to_walk_before_its_first_step() -> None:
    drive = Drive(rolling(), up=frozenset(OLD))
    drive.act(Action.ROLLBACK)
    assert (drive.state.phase, drive.state.is_reversing) == (Phase.ROLLED_BACK, False)


def test_nothing_but_the_way_back_is_possible_on_the_way_back() -> None:
    drive = Drive(rolling(guard=guard()), verdict=PASS)
    drive.run(7)
    drive.act(Action.ROLLBACK)
    assert drive.act(Action.ROLLBACK).note.startswith("it is on its way back already")
    for action in (Action.PROMOTE, Action.PAUSE, Action.RESUME, Action.SWITCH, Action.WEIGHTS):
        with pytest.raises(engine.Refused, match="on its way back to old"):
            drive.act(action)


@pytest.mark.parametrize("action", [Action.PROMOTE, Action.RESUME, Action.PAUSE])
def test_a_late_word_never_starts_again_what_was_rolled_back(action: Action) -> None:
    drive = progressing()
    drive.verdict = FAIL
    drive.turn()
    with pytest.raises(engine.Refused, match=r"it was rolled back \(.*errors 9% against 1%"):
        drive.act(action)


def test_what_a_person_rolled_back_is_said_once_and_how_it_is_tried_again() -> None:
    drive = progressing()
    drive.act(Action.ROLLBACK, "wrong labels")
    with pytest.raises(engine.Refused) as refused:
        drive.act(Action.PROMOTE)
    assert str(refused.value) == (
        "the rollout is over, it was rolled back by ann: wrong labels. It starts over when the "
        "policy is edited; to try the same again, change its revision"
    )


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (Action.PAUSE, Action.PAUSE, "it is paused already, by ann"),
        (Action.ROLLBACK, Action.ROLLBACK, "it is rolled back already, by ann"),
        (None, Action.RESUME, "it is going on already, at step 1 of 3 (10%)"),
    ],
)
def test_what_is_so_already_is_said_and_changes_nothing(
    first: Action | None, second: Action, said: str
) -> None:
    drive = progressing()
    if first:
        drive.act(first)
    before = drive.state
    turn = drive.act(second)
    assert turn.note.startswith(said)
    assert (turn.state, turn.events) == (before, ())


def test_a_pause_of_what_was_not_started_does_not_seem_to_be_one_that_resume_undoes() -> None:
    drive = Drive(replace(blue_green(), starts_by_itself=False))
    before = drive.state
    turn = drive.act(Action.PAUSE)
    assert turn.note == "it waits for a person already: it was not started"
    assert (turn.state, turn.events) == (before, ())


@pytest.mark.parametrize(
    ("plan", "starters"), [(blue_green, "promote or switch"), (canary, "promote")]
)
def test_a_script_that_pauses_and_resumes_does_not_start_what_waits_for_a_person(
    plan: Callable[..., Plan], starters: str
) -> None:
    drive = Drive(plan(starts_by_itself=False))
    assert drive.events[0].reason.endswith(f"; it waits for a person: {starters}")
    drive.act(Action.PAUSE)
    before = drive.state
    turn = drive.act(Action.RESUME)
    assert turn.note == f"it was not started: use {starters}"
    assert (turn.state, turn.events) == (before, ())
    drive.run(100)
    assert (drive.state.phase, drive.new_share) == (Phase.PENDING, 0.0)


def test_weights_and_promotion_that_are_so_already_are_said_too() -> None:
    drive = progressing()
    drive.act(Action.WEIGHTS, new=0.05, old=0.95)
    assert drive.act(Action.WEIGHTS, old=0.95, new=0.05).note.startswith("the weights are these")
    drive.act(Action.RESUME)
    drive.until(Phase.PROMOTED)
    assert drive.act(Action.PROMOTE).note.startswith("it is promoted already")
    assert drive.act(Action.RESUME).note.startswith("it is promoted already")
    with pytest.raises(engine.Refused, match="keep is 0"):
        drive.act(Action.ROLLBACK)
