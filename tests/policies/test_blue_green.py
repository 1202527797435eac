from typing import Any

import pytest
from pydantic import ValidationError

from router.rollouts.plan import Plan
from tests.policies.requests import Head, built, options, user

POOLS = {"blue": {"http://a": 1.0}, "green": {"http://b": 1.0}}
GATES = [{"name": "qa", "webhook": {"url": "http://qa"}}]


def blue_green(**more: Any) -> dict[str, Any]:
    return {"type": "blue_green", "active": "blue", "preview": "green"} | more


def plan(**more: Any) -> Plan:
    planned = options(**blue_green(**more)).rollout(POOLS)
    assert planned is not None
    return planned


def chosen(header: str, weights: dict[str, float] | None = None, client: str = "10.0.0.1") -> str:
    head = Head({b"x-preview": header.encode()}, client=client)
    policy = blue_green(preview_header="x-preview")
    return built(weights=weights, **policy).assign(head, 0.5).variant


def test_before_the_switch_all_is_the_active_s_and_after_it_the_preview_s() -> None:
    before, after = built(**blue_green()), built(weights={"blue": 0, "green": 1}, **blue_green())

    assert {before.assign(Head(), i / 100).variant for i in range(100)} == {"blue"}
    assert {after.assign(Head(), i / 100).variant for i in range(100)} == {"green"}


@pytest.mark.parametrize(
    ("header", "variant"),
    [("always", "green"), ("true", "green"), ("green", "green"), ("never", "blue"),
     ("blue", "blue"), ("1", "blue")],
)  # fmt: skip
def test_a_tester_s_header_chooses(header: str, variant: str) -> None:
    assert chosen(header) == variant


def test_the_header_is_honoured_from_where_the_config_allows_only() -> None:
    assert chosen("always", client="203.0.113.9") == "blue"
    policy = blue_green(preview_header="x-preview", allow_from=["any"])
    head = Head({b"x-preview": b"always"}, client="203.0.113.9")
    assert built(**policy).assign(head, 0.5).variant == "green"


def test_after_the_switch_never_still_means_the_old_colour() -> None:
    assert chosen("never", weights={"blue": 0.0, "green": 1.0}) == "blue"


def test_a_switch_at_once_has_no_steps_and_bakes_with_all_traffic() -> None:
    planned = plan(bake="10m", guard={"max_error_rate": "1%"})

    assert planned.steps == ()
    assert planned.final.stage.weights == {"blue": 0.0, "green": 1.0}
    assert (planned.bake_s, planned.bakes_switched, planned.can_switch) == (600.0, True, True)
    assert (planned.starts_by_itself, planned.keep_s) == (False, 3600.0)
    assert planned.needs_one_up == ("green",)


def test_a_switch_over_time_moves_a_tenth_at_the_beginning_of_each_tenth() -> None:
    planned = plan(over="10m", start="auto")

    assert [step.stage.weights["green"] for step in planned.steps] == [
        0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9
    ]  # fmt: skip
    assert {step.hold_s for step in planned.steps} == {60.0}
    assert planned.starts_by_itself


def test_sticky_users_switch_once() -> None:
    policy = blue_green(over="10m", sticky={"header": "x-user-id"})
    earlier: set[int] = set()
    for share in (0.1, 0.3, 0.9, 1.0):
        assignment = built(weights={"blue": 1 - share, "green": share}, **policy)
        on_green = {i for i in range(2000) if assignment.assign(user(str(i)), 0).variant == "green"}
        assert earlier <= on_green
        earlier = on_green
    assert len(earlier) == 2000


def test_a_guard_that_compares_loses_its_defaults_where_nothing_runs_beside_it() -> None:
    at_once, over_time = plan(guard={}), plan(guard={}, over="10m")

    assert at_once.guard is not None and not [*at_once.guard.rates(), *at_once.guard.quantiles()]
    assert over_time.guard is not None and [*over_time.guard.rates()]


def test_a_guard_before_the_switch_without_testers_has_its_gates_only() -> None:
    pre_guard = plan(pre_guard={"gates": GATES, "max_wait": "1m"}).pre_guard
    tested = plan(pre_guard={"gates": GATES}, preview_header="x-preview").pre_guard

    assert pre_guard is not None and tested is not None
    assert (pre_guard.min_requests, pre_guard.burst, list(pre_guard.rates())) == (0, None, [])
    assert (pre_guard.max_wait, [gate.name for gate in pre_guard.gates]) == (60.0, ["qa"])
    assert tested.min_requests == 100


@pytest.mark.parametrize(
    ("changed", "place", "message"),
    [
        ({"preview": "blue"}, (), "active and preview are the same backend, blue"),
        ({"allow_from": ["any"]}, (), "allow_from is about preview_header, there is none"),
        (
            {"guard": {"p99": "1.2x"}},
            ("guard", "p99"),
            "1.2x compares with the old version, which gets no traffic while the new one does: "
            "write an absolute bound, or let the switch take time (over)",
        ),
        ({"guard": {"kpis": {"aborts": "1.5x"}}}, ("guard", "kpis", "aborts"), "1.5x compares"),
        ({"pre_guard": {"p99": "1s"}}, ("pre_guard", "p99"), "give testers a preview_header"),
        ({"pre_guard": {}}, ("pre_guard",), "preview_header, or the guard gates"),
        ({"bake": "long"}, ("bake",), "not a duration"),
    ],
)
def test_what_cannot_be_is_refused(
    changed: dict[str, Any], place: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        options(**blue_green() | changed)
    error = caught.value.errors()[0]
    assert error["loc"] == place
    assert message in error["msg"]


def test_a_switch_over_time_that_only_the_clock_holds_back_is_pointed_out() -> None:
    (warning,) = options(**blue_green(over="1m")).warnings()
    assert "moves by the clock alone" in warning
    assert options(**blue_green(over="1m", guard={})).warnings() == ()
    assert options(**blue_green()).warnings() == ()
