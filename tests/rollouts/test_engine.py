"""Every transition of a rollout, on a simulated clock."""

import json
from dataclasses import replace

import pytest

from router.rollouts import engine
from router.rollouts.plan import Stage, Step
from router.rollouts.state import Inputs, Phase
from tests.rollouts.plans import (
    ALL,
    FAIL,
    NEW,
    OLD,
    PASS,
    START_S,
    UNSURE,
    Drive,
    blue_green,
    canary,
    guard,
    recreate,
    rolling,
    share,
)


def test_a_rollout_begins_pending_and_says_so() -> None:
    drive = Drive(canary())
    [started] = drive.events
    assert drive.state.phase is Phase.PENDING
    assert drive.new_share == 0.0
    assert (started.kind, started.by, started.at_s) == ("started", "pointsman", START_S)
    assert started.reason == "rollout from old to new"
    assert started.after == {"phase": "pending", "step": -1, "weights": share(0.0)}


def test_a_step_is_held_for_its_time_and_then_the_next_one_comes() -> None:
    drive = Drive(canary())
    drive.turn()
    assert (drive.state.step, drive.new_share) == (0, 0.1)
    drive.run(9)
    assert (drive.state.step, drive.state.held_s) == (0, 9.0)
    drive.turn()
    assert (drive.state.step, drive.new_share, drive.state.held_s) == (1, 0.25, 0.0)
    assert drive.events[-1].reason == "step 2 of 3 (25%): held for 10s"
    assert drive.events[-1].before["weights"] == share(0.1)
    assert drive.events[-1].after["weights"] == share(0.25)


def test_without_a_bake_the_last_step_leads_to_promotion() -> None:
    drive = Drive(canary())
    drive.until(Phase.PROMOTED)
    assert drive.now_s == START_S + 1 + 3 * 10
    assert drive.kinds == ["started", "step", "step", "step", "promoted"]
    assert drive.new_share == 1.0
    assert drive.events[-1].reason == "new has all traffic"


def test_a_canary_bakes_at_its_last_step() -> None:
    drive = Drive(canary(bake_s=30.0))
    drive.until(Phase.BAKING)
    assert drive.new_share == 0.5
    assert drive.events[-1].reason == "baking for 30s: new has 50% of the traffic"
    drive.run(29)
    assert drive.state.phase is Phase.BAKING
    drive.turn()
    assert (drive.state.phase, drive.new_share) == (Phase.PROMOTED, 1.0)


def test_blue_green_bakes_with_all_traffic_moved() -> None:
    drive = Drive(blue_green())
    drive.turn()
    assert (drive.state.phase, drive.new_share) == (Phase.BAKING, 1.0)
    drive.run(20)
    assert drive.state.phase is Phase.PROMOTED
    assert drive.events[-1].reason == "new has all traffic; a rollback is taken for 30s"


def test_a_turn_that_is_longer_than_the_hold_takes_one_step_only() -> None:
    drive = Drive(canary())
    drive.turn(500.0)
    drive.turn(500.0)
    assert (drive.state.step, drive.state.held_s) == (1, 0.0)


def test_the_hold_goes_on_after_a_crash_where_it_was() -> None:
    drive = Drive(canary())
    drive.run(5)
    drive.restart()
    drive.now_s += 7200  # two hours of which the engine knows nothing
    drive.run(5)
    assert (drive.state.step, drive.state.held_s) == (0, 9.0)
    drive.turn()
    assert drive.state.step == 1


def test_requests_of_the_new_variant_are_counted_per_step() -> None:
    drive = Drive(canary())
    drive.turn()
    drive.turn(requests=7)
    drive.turn(requests=8)
    assert drive.state.in_step == 15
    drive.run(8)
    assert (drive.state.step, drive.state.in_step) == (1, 0)


# Waiting to begin


def test_it_waits_for_an_endpoint_of_the_new_variant_and_fails_when_there_is_none() -> None:
    drive = Drive(canary(), up=frozenset(OLD))
    drive.turn()
    assert drive.state.phase is Phase.PENDING
    assert drive.state.reason == "waits for an endpoint of new to be healthy"
    drive.run(59)
    assert (drive.state.phase, drive.new_share) == (Phase.FAILED, 0.0)
    assert drive.kinds == ["started", "failed"]
    assert drive.state.reason == "waited 1m in vain for an endpoint of new to be healthy"


def test_one_healthy_endpoint_is_enough_to_begin() -> None:
    drive = Drive(canary(), up=frozenset(OLD))
    drive.run(30)
    drive.up = frozenset({*OLD, NEW[1]})
    drive.turn()
    assert drive.state.step == 0


@pytest.mark.parametrize("action", [engine.Action.PROMOTE, engine.Action.SWITCH])
def test_a_manual_start_waits_for_a_person_as_long_as_it_takes(action: engine.Action) -> None:
    drive = Drive(blue_green(starts_by_itself=False), up=frozenset(OLD))
    drive.run(1000)
    assert drive.state.phase is Phase.PENDING
    drive.act(action, "go")
    drive.up = ALL
    drive.turn()
    assert drive.state.phase is Phase.BAKING


def test_the_pre_guard_is_waited_for_before_the_first_step() -> None:
    drive = Drive(blue_green(pre_guard=guard()), pre_verdict=UNSURE)
    drive.run(30)
    assert drive.state.phase is Phase.PENDING
    assert drive.state.reason == "waits for evidence: 3 requests, 100 are needed"
    drive.pre_verdict = PASS
    drive.turn()
    assert drive.state.phase is Phase.BAKING


def test_a_pre_guard_that_fails_ends_the_rollout_before_it_began() -> None:
    drive = Drive(blue_green(pre_guard=guard()), pre_verdict=FAIL)
    drive.turn()
    assert (drive.state.phase, drive.new_share) == (Phase.FAILED, 0.0)
    assert drive.state.reason == "errors 9% against 1%"


@pytest.mark.parametrize(
    ("rule", "phase"),
    [("hold", Phase.PAUSED), ("rollback", Phase.FAILED), ("promote", Phase.BAKING)],
)
def test_a_pre_guard_that_never_can_say_obeys_its_rule(rule: str, phase: Phase) -> None:
    drive = Drive(blue_green(pre_guard=guard(on_inconclusive=rule)), pre_verdict=UNSURE)
    drive.run(40)
    assert drive.state.phase is phase
    assert "inconclusive" in drive.kinds


def test_a_second_promote_begins_without_the_pre_guard() -> None:
    drive = Drive(blue_green(pre_guard=guard(), starts_by_itself=False), pre_verdict=UNSURE)
    drive.act(engine.Action.PROMOTE)
    drive.run(2)
    assert drive.state.phase is Phase.PENDING
    drive.act(engine.Action.PROMOTE)
    drive.turn()
    assert drive.state.phase is Phase.BAKING


# Guards


@pytest.mark.parametrize("phase", [Phase.PROGRESSING, Phase.PAUSED, Phase.BAKING])
def test_a_guard_that_fails_rolls_back_at_once_wherever_it_is(phase: Phase) -> None:
    drive = Drive(canary(bake_s=30.0, guard=guard()), verdict=PASS)
    drive.turn()
    if phase is Phase.PAUSED:
        drive.act(engine.Action.PAUSE)
    else:
        drive.until(phase)
    drive.verdict = FAIL
    drive.turn(0.25)
    assert (drive.state.phase, drive.new_share) == (Phase.ROLLED_BACK, 0.0)
    assert drive.kinds[-1] == "rolled_back"
    assert drive.state.reason.endswith(": errors 9% against 1%")


def test_a_rollback_with_the_old_variant_down_says_that_too() -> None:
    drive = Drive(canary(guard=guard()))
    drive.turn()
    drive.verdict = FAIL
    drive.up = frozenset(NEW)
    drive.turn()
    assert drive.state.reason == (
        "at step 1 of 3 (10%): errors 9% against 1% (no endpoint of old is healthy either)"
    )


def test_a_guard_that_cannot_say_yet_is_waited_for_after_the_hold() -> None:
    drive = Drive(canary(guard=guard()), verdict=UNSURE)
    drive.run(30)
    assert (drive.state.step, drive.state.held_s, drive.state.waited_s) == (0, 10.0, 19.0)
    drive.verdict = PASS
    drive.turn()
    assert drive.state.step == 1
    assert drive.state.waited_s == 0.0


def test_no_verdict_at_all_is_not_a_pass() -> None:
    drive = Drive(canary(guard=guard()))
    drive.run(30)
    assert drive.state.step == 0
    assert drive.state.reason == "waits for evidence: nothing is measured yet"


def test_inconclusive_for_too_long_pauses_with_the_reason() -> None:
    drive = Drive(canary(guard=guard()), verdict=UNSURE)
    drive.run(51)
    assert (drive.state.phase, drive.state.step) == (Phase.PAUSED, 0)
    assert drive.kinds[-1] == "inconclusive"
    assert drive.state.reason == (
        "no verdict after waiting for 40s: 3 requests, 100 are needed; "
        "waits for promote or rollback"
    )
    assert drive.new_share == 0.1


def test_after_an_inconclusive_pause_resume_waits_as_long_again_and_promote_goes_on() -> None:
    drive = Drive(canary(guard=guard()), verdict=UNSURE)
    drive.run(51)
    drive.act(engine.Action.RESUME)
    drive.run(39)
    assert drive.state.phase is Phase.PROGRESSING
    drive.turn()
    assert drive.state.phase is Phase.PAUSED
    drive.act(engine.Action.PROMOTE)
    assert (drive.state.phase, drive.state.step) == (Phase.PROGRESSING, 1)


def test_inconclusive_may_mean_to_go_on() -> None:
    drive = Drive(canary(guard=guard(on_inconclusive="promote")), verdict=UNSURE)
    drive.run(51)
    assert drive.state.step == 1
    assert drive.kinds[-2:] == ["inconclusive", "step"]


def test_going_on_while_inconclusive_is_said_once_though_the_next_needs_are_missing() -> None:
    plan = canary(guard=guard(on_inconclusive="promote"), ready_timeout_s=1000.0)
    first, second, third = plan.steps
    plan = replace(plan, steps=(first, replace(second, needs_up=frozenset(NEW)), third))
    drive = Drive(plan, verdict=UNSURE, up=frozenset({*OLD, NEW[0]}))
    drive.run(100)
    assert (drive.state.step, drive.kinds.count("inconclusive")) == (0, 1)
    assert drive.state.reason == "waits for http://n2 of new to be healthy"
    drive.up = ALL
    drive.turn()
    assert drive.state.step == 1


def test_inconclusive_may_mean_to_go_back() -> None:
    drive = Drive(canary(guard=guard(on_inconclusive="rollback")), verdict=UNSURE)
    drive.run(51)
    assert (drive.state.phase, drive.new_share) == (Phase.ROLLED_BACK, 0.0)
    assert drive.kinds[-2:] == ["inconclusive", "rolled_back"]


def test_a_verdict_after_the_end_changes_nothing() -> None:
    drive = Drive(canary(guard=guard()), verdict=PASS)
    drive.until(Phase.PROMOTED)
    drive.verdict = FAIL
    assert drive.turn().events == ()
    assert drive.state.phase is Phase.PROMOTED


# Gates


def gated() -> Drive:
    plan = canary(bake_s=30.0, guard=guard())
    steps = tuple(replace(step, is_gated=True) for step in plan.steps)
    drive = Drive(replace(plan, steps=steps), verdict=PASS)
    drive.until(Phase.PAUSED)
    return drive


@pytest.mark.parametrize("action", [engine.Action.PROMOTE, engine.Action.RESUME])
def test_a_gate_waits_for_a_person_who_opens_it(action: engine.Action) -> None:
    drive = gated()
    assert drive.now_s == START_S + 11
    assert drive.state.reason == "step 1 of 3 (10%) is over and passed: waits for promote"
    drive.run(100)
    assert (drive.state.phase, drive.state.step) == (Phase.PAUSED, 0)
    drive.act(action)
    assert (drive.state.phase, drive.state.step) == (Phase.PROGRESSING, 1)


def test_a_gate_is_not_reached_before_the_guard_passes() -> None:
    plan = canary(guard=guard())
    steps = tuple(replace(step, is_gated=True) for step in plan.steps)
    drive = Drive(replace(plan, steps=steps), verdict=UNSURE)
    drive.run(30)
    assert drive.state.phase is Phase.PROGRESSING


def test_the_gate_of_the_last_step_opens_to_the_bake() -> None:
    drive = gated()
    for _ in range(2):
        drive.act(engine.Action.PROMOTE)
        drive.until(Phase.PAUSED)
    drive.act(engine.Action.PROMOTE)
    assert (drive.state.phase, drive.new_share) == (Phase.BAKING, 0.5)


# Rolling


def test_rolling_exchanges_pairs_one_after_the_other() -> None:
    drive = Drive(rolling(), up=frozenset(OLD))
    drive.turn()
    assert drive.state.reason == "waits for http://n1 of new to be healthy"
    drive.up = frozenset({*OLD, NEW[0]})
    drive.turn()
    assert engine.stage(drive.plan, drive.state).idle == {OLD[0], NEW[1]}
    drive.in_flight = {OLD[0]: 3}
    drive.up = ALL
    drive.run(10)
    assert drive.state.step == 0
    assert drive.state.reason == "waits for http://o1 of old to finish what is in flight"
    drive.in_flight = {OLD[0]: 0}
    drive.turn()
    assert drive.state.step == 1
    drive.until(Phase.PROMOTED)
    assert engine.stage(drive.plan, drive.state).idle == frozenset(OLD)


def test_each_pair_has_the_whole_time_to_get_ready() -> None:
    drive = Drive(rolling(), up=frozenset(OLD))
    drive.run(50)
    drive.up = frozenset({*OLD, NEW[0]})
    drive.run(56)
    assert (drive.state.step, drive.state.is_reversing) == (0, False)


def test_an_endpoint_of_which_nothing_is_known_is_not_idle() -> None:
    drive = Drive(rolling(), in_flight={})
    drive.run(30)
    assert drive.state.step == 0


def test_a_pair_that_never_gets_ready_is_rolled_back() -> None:
    drive = Drive(rolling(), up=frozenset({*OLD, NEW[0]}))
    drive.run(6 + 58)
    assert (drive.state.step, drive.state.is_reversing) == (0, False)
    drive.turn()
    assert drive.state.is_reversing
    drive.until(Phase.ROLLED_BACK)
    assert drive.kinds == ["started", "step", "rollback", "rolled_back"]
    assert "waited 1m in vain for http://n2 of new to be healthy" in drive.events[-2].reason


def test_rolling_walks_back_in_reverse_each_old_endpoint_up_before_it_goes_in() -> None:
    drive = Drive(rolling(guard=guard()), verdict=PASS)
    drive.run(6)
    assert drive.state.step == 1
    drive.up = ALL - {OLD[1]}
    drive.verdict = FAIL
    drive.turn()
    assert (drive.state.step, drive.state.is_reversing) == (1, True)
    drive.run(5)
    assert drive.state.step == 1
    assert drive.state.reason == "on its way back, waits for http://o2 of old to be healthy"
    drive.up = ALL
    drive.turn()
    assert (drive.state.step, drive.state.phase) == (0, Phase.PROGRESSING)
    drive.turn()
    assert (drive.state.step, drive.state.phase) == (-1, Phase.ROLLED_BACK)
    assert drive.kinds[-3:] == ["rollback", "step", "rolled_back"]


def test_a_walk_back_does_not_wait_for_ever_for_an_old_endpoint() -> None:
    drive = Drive(rolling(guard=guard()), verdict=PASS)
    drive.run(6)
    drive.up = frozenset(NEW)
    drive.verdict = FAIL
    drive.run(62)
    assert drive.state.step == 0
    drive.turn()  # the wait is over all steps together
    assert drive.state.phase is Phase.ROLLED_BACK
    assert "waited in vain for http://o1 of old to be healthy" in drive.state.reason


def test_a_promoted_rolling_is_walked_back_too() -> None:
    drive = Drive(rolling())
    drive.until(Phase.PROMOTED)
    drive.act(engine.Action.ROLLBACK, "too slow")
    assert drive.state.is_reversing
    drive.until(Phase.ROLLED_BACK)
    assert engine.stage(drive.plan, drive.state).idle == frozenset(NEW)


def test_a_walk_back_from_a_bake_never_moves_traffic_forward() -> None:
    plan = rolling(bake_s=20.0)
    drive = Drive(replace(plan, final=Step(Stage(share(1.0)))))
    drive.until(Phase.BAKING)
    drive.act(engine.Action.ROLLBACK)
    assert engine.stage(drive.plan, drive.state) == plan.steps[-1].stage


# Recreate


def test_recreate_holds_until_the_old_is_idle_and_the_new_is_up() -> None:
    drive = Drive(recreate(guard=guard()), up=frozenset(OLD), in_flight={OLD[0]: 1, OLD[1]: 0})
    drive.turn()
    assert engine.stage(drive.plan, drive.state).is_held
    assert drive.events[-1].reason == "step 1 of 1 (0%): arriving requests are held"
    drive.turn()
    assert drive.state.reason == (
        "waits for http://n1 of new, http://n2 of new to be healthy, "
        "http://o1 of old to finish what is in flight"
    )
    drive.in_flight = dict.fromkeys(OLD, 0)
    drive.up = frozenset(NEW)
    drive.turn()
    assert (drive.state.phase, drive.new_share) == (Phase.BAKING, 1.0)
    assert not engine.stage(drive.plan, drive.state).is_held


def test_recreate_goes_back_to_rest_when_the_new_one_does_not_come_up() -> None:
    drive = Drive(recreate(), up=frozenset(OLD))
    drive.run(61)
    assert drive.state.phase is Phase.ROLLED_BACK
    assert engine.stage(drive.plan, drive.state) == drive.plan.rest


def test_recreate_goes_back_to_rest_though_the_old_one_is_gone_and_says_so() -> None:
    drive = Drive(recreate(), up=frozenset())
    drive.run(61)
    assert drive.state.phase is Phase.ROLLED_BACK
    assert drive.state.reason.endswith("(no endpoint of old is healthy either)")


# After the end


def test_a_promoted_rollout_is_rolled_back_for_as_long_as_the_old_one_is_kept() -> None:
    drive = Drive(blue_green())
    drive.until(Phase.PROMOTED)
    drive.run(29)
    kept = drive.state
    drive.act(engine.Action.ROLLBACK, "wrong answers")
    assert (drive.state.phase, drive.new_share) == (Phase.ROLLED_BACK, 0.0)
    assert drive.kinds[-2:] == ["rollback", "rolled_back"]
    drive.state = kept
    drive.turn()
    with pytest.raises(engine.Refused, match="promoted more than 30s \\(keep\\) ago"):
        drive.act(engine.Action.ROLLBACK)
    assert drive.turn() == engine.Turn(drive.state, ())  # nothing moves any more


# The state as data


def test_a_state_survives_being_written_as_json() -> None:
    drive = Drive(canary(guard=guard()))
    drive.run(3)
    drive.act(engine.Action.WEIGHTS, new=0.2)
    state = replace(drive.state, evidence={"errors": [1.0, 2.0]}, cursor="17-0")
    assert engine.restore(json.loads(json.dumps(engine.dump(state)))) == state


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 2}, "state of a rollout in version 2, expected 1"),
        ({"phase": "odd"}, "'odd' is not a valid Phase"),
        ({"held_s": "1"}, "held_s is '1'"),
        ({"step": True}, "step is True"),
        ({"colour": 1}, "unexpected keyword argument 'colour'"),
    ],
)
def test_what_is_not_a_state_is_refused(changes: dict[str, object], said: str) -> None:
    dumped = {**engine.dump(Drive(canary()).state), **changes}
    with pytest.raises(ValueError, match=said):
        engine.restore(dumped)


def test_a_state_with_something_missing_is_refused() -> None:
    dumped = engine.dump(Drive(canary()).state)
    for name in ("version", "phase", "pause", "step"):
        with pytest.raises(ValueError, match=f"lacks {name}|version None"):
            engine.restore({key: value for key, value in dumped.items() if key != name})


def test_the_engine_is_pure_and_says_the_same_twice() -> None:
    drive = Drive(canary())
    inputs = Inputs(START_S + 1, 1.0, ALL, {})
    assert engine.advance(drive.plan, drive.state, inputs) == engine.advance(
        drive.plan, drive.state, inputs
    )
