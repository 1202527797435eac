import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from router.policies.base import Assignment
from tests.policies.requests import Head, built, options, user


def canary(weight: object, **more: Any) -> dict[str, Any]:
    return {
        "type": "canary",
        "stable": "old",
        "canary": "new",
        "weight": weight,
        "sticky": {"header": "x-user-id"},
    } | more


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


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weight": "50.1%"}, r"50.1% is more than 50%: past that, promote"),
        ({"weight": 1}, r"100% is more than 50%: past that, promote"),
        ({"weight": "ten"}, "'ten' is not a share"),
        ({"canary": "old"}, "stable and canary are the same backend, old"),
        ({"sticky": None}, "Input should be"),
        ({"steps": []}, "Extra inputs are not permitted"),
        ({"guard": {}}, "Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        options(**canary("10%") | changed)


def test_a_weight_above_35_percent_is_pointed_out() -> None:
    assert options(**canary("35%")).warnings() == ()
    (warning,) = options(**canary("36%")).warnings()
    assert warning.startswith("a canary weight of 36% is more than 35%")
