from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from router.policies.base import Pools
from router.rollouts.plan import Place, Plan
from tests.policies.requests import Head, built, options


def pools(old: list[float], new: list[float]) -> Pools:
    """Endpoints `a0`, `a1`, ... of `old` and `b0`, ... of `new`, with these weights."""
    return {
        "old": {f"a{i}": weight for i, weight in enumerate(old)},
        "new": {f"b{i}": weight for i, weight in enumerate(new)},
    }


def rolling(**more: Any) -> dict[str, Any]:
    return {"type": "rolling", "from": "old", "to": "new"} | more


def plan(old: list[float], new: list[float], **more: Any) -> Plan:
    planned = options(**rolling(**more)).rollout(pools(old, new))
    assert planned is not None
    return planned


def idle(places: frozenset[Place]) -> str:
    return " ".join(sorted(url for _, url in places))


def rows(planned: Plan) -> list[tuple[float, str, str]]:
    """(share of the new version, idle endpoints, endpoints that must be up) of each step."""
    return [
        (step.stage.weights["new"], idle(step.stage.idle), idle(step.needs_up))
        for step in planned.steps
    ]


def test_pairs_are_exchanged_one_after_the_other() -> None:
    planned = plan([1, 1, 1, 1], [1, 1, 1, 1], hold="1m")

    assert rows(planned) == [
        (0.25, "a0 b1 b2 b3", "b0"),
        (0.5, "a0 a1 b2 b3", "b0 b1"),
        (0.75, "a0 a1 a2 b3", "b0 b1 b2"),
        (1.0, "a0 a1 a2 a3", "b0 b1 b2 b3"),
    ]
    assert idle(planned.rest.idle) == "b0 b1 b2 b3"
    assert planned.final.stage == planned.steps[-1].stage
    assert {step.hold_s for step in planned.steps} == {60.0}
    assert (planned.reverses, planned.bakes_switched, planned.can_switch) == (True, True, True)
    assert planned.starts_by_itself


@pytest.mark.parametrize(
    ("batch", "shares"),
    [
        (1, [0.25, 0.5, 0.75, 1.0]),
        (2, [0.5, 1.0]),
        (3, [0.5, 1.0]),
        (9, [1.0]),
        ("25%", [0.25, 0.5, 0.75, 1.0]),
        ("50%", [0.5, 1.0]),
        ("40%", [0.5, 2 / 3, 1.0]),
        ("1%", [0.25, 0.5, 0.75, 1.0]),
        ("100%", [1.0]),
    ],
)
def test_a_batch_is_a_number_or_a_share(batch: int | str, shares: list[float]) -> None:
    found = [share for share, _, _ in rows(plan([1] * 4, [1] * 4, batch=batch))]
    assert found == pytest.approx(shares, abs=0.12)
    assert len(found) == len(shares)


def test_of_unequal_pools_the_same_share_is_exchanged() -> None:
    assert rows(plan([1, 1, 1, 1], [1, 1])) == [
        (pytest.approx(0.5 / (0.5 + 0.75)), "a0 b1", "b0"),
        (0.5, "a0 a1 b1", "b0"),
        (0.8, "a0 a1 a2", "b0 b1"),
        (1.0, "a0 a1 a2 a3", "b0 b1"),
    ]
    assert rows(plan([1], [1, 1])) == [(pytest.approx(1 / 3), "b1", "b0"), (1.0, "a0", "b0 b1")]


def test_an_endpoint_of_twice_the_weight_counts_twice() -> None:
    assert [share for share, _, _ in rows(plan([1, 3], [3, 1]))] == [0.5, 1.0]


@given(
    st.lists(st.floats(0.1, 9), min_size=1, max_size=9),
    st.lists(st.floats(0.1, 9), min_size=1, max_size=9),
    st.integers(1, 10),
)
def test_no_batch_goes_back_or_leaves_a_version_without_endpoints_a_share(
    old: list[float], new: list[float], batch: int
) -> None:
    planned = plan(old, new, batch=batch)
    stages = [planned.rest, *(step.stage for step in planned.steps)]

    for earlier, later in pairwise(stages):
        assert earlier.weights["new"] <= later.weights["new"] + 1e-9
        assert {p for p in earlier.idle if p[0] == "old"} <= later.idle
        assert {p for p in later.idle if p[0] == "new"} <= earlier.idle
    for stage in stages:
        assert sum(stage.weights.values()) == pytest.approx(1.0)
        for backend, count in (("old", len(old)), ("new", len(new))):
            in_use = count - len([p for p in stage.idle if p[0] == backend])
            assert (in_use > 0) == (stage.weights[backend] > 1e-9)
    assert planned.steps[-1].stage.weights["new"] == pytest.approx(1.0)


def test_requests_are_spread_over_both_versions_by_weight() -> None:
    assignment = built(weights={"old": 0.75, "new": 0.25}, **rolling())
    variants = [assignment.assign(Head(), i / 100).variant for i in range(100)]
    assert variants.count("new") == 25


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"to": "old"}, "from and to are the same backend, old"),
        ({"batch": 0}, "0 is not a batch, write a number of endpoints from 1, or a percentage"),
        ({"batch": "0%"}, "'0%' is not a batch"),
        ({"batch": 0.5}, "0.5 is not a batch"),
        ({"batch": True}, "True is not a batch"),
        ({"batch": "120%"}, "not a share between 0% and 100%"),
    ],
)
def test_what_cannot_be_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        options(**rolling() | changed)


def test_an_exchange_that_only_the_clock_holds_back_is_pointed_out() -> None:
    (warning,) = options(**rolling()).warnings()
    assert "moves by the clock alone" in warning
    assert options(**rolling(guard={})).warnings() == ()
