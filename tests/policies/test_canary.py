import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from router.policies.base import Assignment
from router.rollouts.plan import Plan
from tests.policies.requests import Head, built, options, user

POOLS = {"old": {"http://a": 1.0}, "new": {"http://b": 1.0}}


def canary(weight: object, **more: Any) -> dict[str, Any]:
    return {
        "type": "canary",
        "stable": "old",
        "canary": "new",
        "weight": weight,
        "sticky": {"header": "x-user-id"},
    } | more


def ramp(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    rest = {key: value for key, value in canary(0).items() if key != "weight"}
    return rest | {"steps": list(steps)} | more


def plan(**policy: Any) -> Plan:
    planned = options(**policy).rollout(POOLS)
    assert planned is not None
    return planned


def shares(planned: Plan) -> list[float]:
    return [step.stage.weights["new"] for step in planned.steps]


def users_on_canary(assignment: Assignment, count: int) -> set[int]:
    return {i for i in range(count) if assignment.assign(user(str(i)), 0.5).variant == "new"}


@given(st.floats(0.0, 0.5), st.floats(0.0, 0.5), st.lists(st.binary(min_size=1), max_size=20))
def test_raising_the_weight_never_moves_a_unit_out_of_the_canary(
    one: float, other: float, units: list[bytes]
) -> None:
    low, high = (built(**canary(weight)) for weight in sorted((one, other)))

    for unit in units:
        if low.assign(user(unit), 0.5).variant == "new":
            assert high.assign(user(unit), 0.5).variant == "new"


@pytest.mark.parametrize("weight", [0.01, 0.1, 0.5])
def test_its_share_of_users_is_its_weight(weight: float) -> None:
    count = 20_000
    share = len(users_on_canary(built(**canary(weight)), count)) / count

    assert abs(share - weight) < 4.5 * math.sqrt(weight * (1 - weight) / count)


def test_a_weight_of_zero_means_nobody() -> None:
    assert users_on_canary(built(**canary("0%")), 500) == set()


def test_a_user_stays_on_one_version_whatever_the_random_number() -> None:
    assignment = built(**canary("50%"))

    for i in range(100):
        assert assignment.assign(user(str(i)), 0.0) is assignment.assign(user(str(i)), 0.99)


def test_a_request_without_a_unit_gets_stable_never_at_random() -> None:
    assignment = built(**canary("50%"))

    decisions = {assignment.assign(Head(), i / 100) for i in range(100)}

    assert [(d.variant, d.propensity, d.reason) for d in decisions] == [("old", 1.0, "no_unit")]


def test_with_a_cookie_a_new_client_is_given_a_unit() -> None:
    assignment = built(**canary("50%", sticky={"cookie": "uid"}))

    decisions = [assignment.assign(Head(), 0.5) for _ in range(100)]

    assert {d.variant for d in decisions} == {"old", "new"}
    assert len({d.set_cookie for d in decisions}) == 100
    assert all(d.reason == "sticky" and d.propensity == 0.5 for d in decisions)
    assert decisions[0].set_cookie == (
        b"uid=00000000000000000000000000000000; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax"
    )


def test_propensities_are_the_weights() -> None:
    assignment = built(**canary("20%"))
    decisions = {assignment.assign(user(str(i)), 0.5) for i in range(100)}

    assert {(d.variant, d.propensity) for d in decisions} == {("old", 0.8), ("new", 0.2)}
    assert assignment.weights == {"old": 0.8, "new": 0.2}


def test_weights_from_a_controller_replace_the_configured_one() -> None:
    assert built(weights={"old": 0.7, "new": 0.3}, **canary("0%")).weights["new"] == 0.3


def test_a_user_on_the_canary_stays_there_through_every_step_until_all_are() -> None:
    """The promise of a ramp, over 10,000 users and every stage of the rollout."""
    policy = ramp({"weight": "1%"}, {"weight": "5%"}, {"weight": "25%"}, {"pause": {}},
                  {"weight": "35%"}, {"weight": "50%"})  # fmt: skip
    planned = plan(**policy)
    stages = [planned.rest, *(step.stage for step in planned.steps), planned.final.stage]

    on_canary = [
        users_on_canary(built(weights=dict(stage.weights), **policy), 10_000) for stage in stages
    ]

    assert on_canary[0] == set()
    assert on_canary[-1] == set(range(10_000))
    for earlier, later in pairwise(on_canary):
        assert earlier <= later
    for stage, users in zip(stages, on_canary, strict=True):
        assert abs(len(users) / 10_000 - stage.weights["new"]) < 0.02


def test_after_promotion_everything_is_the_canary_s_also_what_has_no_unit() -> None:
    policy = ramp({"weight": "50%"})
    promoted = built(weights={"old": 0.0, "new": 1.0}, **policy)
    rolled_back = built(weights={"old": 1.0, "new": 0.0}, **policy)

    assert users_on_canary(promoted, 500) == set(range(500))
    assert promoted.assign(Head(), 0.5).variant == "new"
    assert users_on_canary(rolled_back, 500) == set()
    assert rolled_back.assign(Head(), 0.5).variant == "old"


def test_a_client_that_gets_a_cookie_after_promotion_is_the_canary_s() -> None:
    policy = ramp({"weight": "50%"}, sticky={"cookie": "uid"})
    promoted = built(weights={"old": 0.0, "new": 1.0}, **policy)

    assert {promoted.assign(Head(), 0.5).variant for _ in range(50)} == {"new"}


def test_a_ramp_begins_with_nobody_on_the_canary() -> None:
    assert built(**ramp({"weight": "5%"})).weights == {"old": 1.0, "new": 0.0}


def test_a_constant_weight_is_no_rollout() -> None:
    constant = options(**canary("10%"))
    assert constant.rollout(POOLS) is None
    assert not constant.is_measured


def test_a_constant_weight_with_a_guard_is_a_rollout_of_one_step_that_waits_for_a_person() -> None:
    policy = canary("10%", guard={})
    planned = plan(**policy)

    assert options(**policy).is_measured
    assert [(step.stage.weights["new"], step.is_gated) for step in planned.steps] == [(0.1, True)]
    assert built(**policy).weights["new"] == 0.0


def test_steps_have_weights_holds_and_gates() -> None:
    planned = plan(
        **ramp(
            {"pause": {}}, {"weight": "5%", "hold": "10m"}, {"pause": {}}, {"weight": "50%"},
            bake="1h", keep="2h", start="manual", ready_timeout="1m", guard={},
        )
    )  # fmt: skip

    assert [(s.stage.weights["new"], s.hold_s, s.is_gated) for s in planned.steps] == [
        (0.0, 0.0, True),
        (0.05, 600.0, False),
        (0.05, 0.0, True),
        (0.5, 0.0, False),
    ]
    assert (planned.bake_s, planned.keep_s, planned.ready_timeout_s) == (3600.0, 7200.0, 60.0)
    assert (planned.starts_by_itself, planned.bakes_switched, planned.reverses) == (
        False,
        False,
        False,
    )
    assert (planned.weight_max, planned.can_switch, planned.needs_one_up) == (0.5, False, ("new",))
    assert planned.guard is not None
    assert planned.final.stage.weights == {"old": 0.0, "new": 1.0}


@pytest.mark.parametrize(
    ("short", "weights"),
    [
        (("5%", "30%", "10%"), [0.05, 0.15, 0.25, 0.3]),
        (("10%", "50%", "10%"), [0.1, 0.2, 0.3, 0.4, 0.5]),
        (("20%", "20%", "5%"), [0.2]),
        (("0%", "50%", "100%"), [0.0, 0.5]),
    ],
)
def test_the_short_form_is_a_list_of_equal_steps(
    short: tuple[str, str, str], weights: list[float]
) -> None:
    first, last, step = short
    steps = {"from": first, "to": last, "step": step, "interval": "10m"}

    planned = plan(**ramp() | {"steps": steps})

    assert shares(planned) == weights
    assert {step.hold_s for step in planned.steps} == {600.0}


@given(st.floats(0.0, 0.5), st.floats(0.0, 0.5), st.floats(0.005, 1.0))
def test_a_short_form_rises_to_its_end_whatever_the_numbers(
    one: float, other: float, step: float
) -> None:
    first, last = sorted((one, other))
    short = {"from": first, "to": last, "step": step, "interval": "1s"}
    found = shares(plan(**ramp() | {"steps": short}))

    assert found[-1] == last
    assert found == sorted(found)


def test_the_edit_after_promotion_is_yaml_that_gives_all_to_the_canary() -> None:
    assert plan(**ramp({"weight": "5%"})).edit == "policy: {type: single, backend: new}"
    assert plan(**ramp({"weight": "5%"}, canary="on")).edit == (
        "policy: {type: single, backend: 'on'}"
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weight": "50.1%"}, r"50.1% is more than 50%: past that, promote"),
        ({"weight": 1}, r"100% is more than 50%: past that, promote"),
        ({"weight": "ten"}, "'ten' is not a share"),
        ({"canary": "old"}, "stable and canary are the same backend, old"),
        ({"sticky": None}, "Input should be"),
        ({"weight": None}, "exactly one of weight and steps"),
        ({"steps": [{"weight": "5%"}]}, "exactly one of weight and steps"),
        ({"bake": "1m", "start": "auto"}, "bake and start: a constant weight is no rollout"),
        ({"gaurd": {}}, "Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        options(**canary("10%") | changed)


@pytest.mark.parametrize(
    ("steps", "place", "message"),
    [
        ([{"weight": "25%"}, {"weight": "5%"}], (1, "weight"), "5% is less than 25% of the step"),
        ([{"weight": "25%"}, {"pause": {}}, {"weight": "5%"}], (2, "weight"), "5% is less than"),
        ([{"weight": "5%"}, {"weight": "60%"}], (1, "weight"), "60% is more than 50%"),
        ([{"weight": "5%"}, {"hold": "1m"}], (1,), "a step has a weight, unless it is a pause"),
        ([{"weight": "5%", "pause": {"for": 1}}], (0, "pause", "for"), "Extra inputs"),
        ([], (), "at least 1 item"),
        ([{"weight": "5%"}] * 101, (), "at most 100 items"),
        ("fast", (), "valid tuple"),
        (
            {"from": "30%", "to": "10%", "step": "5%", "interval": "1m"},
            ("from",),
            "30% is more than `to`, 10%: a ramp only rises",
        ),
        ({"from": "5%", "to": "60%", "step": "5%", "interval": "1m"}, ("to",), "more than 50%"),
        ({"from": "5%", "to": "10%", "step": 0, "interval": "1m"}, ("step",), "greater than 0"),
        ({"from": "5%", "to": "10%", "step": "5%"}, ("interval",), "required"),
        ({"from": 0, "to": 0.5, "step": 0.001, "interval": "1m"}, (), "at most 100 items"),
    ],
)
def test_a_step_that_cannot_be_is_refused_with_its_place(
    steps: Any, place: tuple[str | int, ...], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        options(**ramp() | {"steps": steps})
    error = caught.value.errors()[0]
    assert error["loc"] == ("steps", *place)
    assert message in error["msg"]


def test_two_steps_may_have_one_weight() -> None:
    assert shares(plan(**ramp({"weight": "5%", "hold": "1m"}, {"weight": "5%"}))) == [0.05, 0.05]


def test_a_constant_weight_above_35_percent_is_pointed_out() -> None:
    assert options(**canary("35%")).warnings() == ()
    (warning,) = options(**canary("36%")).warnings()
    assert warning.startswith("a canary weight of 36% is more than 35%")


def test_a_ramp_that_only_the_clock_holds_back_is_pointed_out() -> None:
    (warning,) = options(**ramp({"weight": "5%", "hold": "1m"})).warnings()
    assert "moves by the clock alone" in warning
    assert options(**ramp({"weight": "5%", "pause": {}})).warnings() == ()
    assert options(**ramp({"weight": "5%"}, guard={})).warnings() == ()
