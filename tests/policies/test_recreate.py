from typing import Any

import pytest
from pydantic import ValidationError

from router.policies.base import HoldBounds
from router.rollouts.plan import Place, Plan
from tests.policies.requests import Head, built, options

POOLS = {"old": {"a0": 1.0, "a1": 1.0}, "new": {"b0": 1.0, "b1": 1.0}}
OLD, NEW = (frozenset((backend, url) for url in POOLS[backend]) for backend in ("old", "new"))
NONE: frozenset[Place] = frozenset()


def recreate(**more: Any) -> dict[str, Any]:
    return {"type": "recreate", "from": "old", "to": "new"} | more


def plan(**more: Any) -> Plan:
    planned = options(**recreate(**more)).rollout(POOLS)
    assert planned is not None
    return planned


def test_requests_are_held_while_the_old_version_drains_and_the_new_one_comes_up() -> None:
    planned = plan()
    drain, wait = planned.steps

    assert (drain.stage.is_held, drain.stage.idle, drain.needs_idle) == (True, OLD, NONE)
    assert (wait.stage.is_held, wait.stage.idle, wait.needs_idle) == (True, OLD, OLD)
    assert (planned.final.stage.is_held, planned.final.needs_up) == (False, NEW)
    assert planned.final.stage.weights == {"old": 0.0, "new": 1.0}
    assert planned.final.stage.idle == OLD
    assert not planned.rest.is_held and not planned.rest.idle


def test_it_waits_for_a_person_by_default() -> None:
    assert not plan().starts_by_itself
    assert plan(start="auto").starts_by_itself
    assert plan().can_switch


def test_it_is_given_up_when_requests_would_wait_in_vain() -> None:
    assert plan().ready_timeout_s == 30.0
    assert plan(hold={"for": "2m"}).ready_timeout_s == 120.0
    assert plan(ready_timeout="5s").ready_timeout_s == 5.0


@pytest.mark.parametrize("written", [{}, {"ready_timeout": "30s"}, {"hold": {"for": "2m"}}])
def test_nothing_is_warned_of_while_every_request_may_be_answered(written: dict[str, Any]) -> None:
    assert options(**recreate(**written)).warnings() == ()


def test_a_change_that_may_take_longer_than_requests_wait_is_warned_of() -> None:
    [warning] = options(**recreate(ready_timeout="10m")).warnings()
    assert warning.startswith("ready_timeout is 10m, but a request waits for 30s (hold.for)")
    assert plan(ready_timeout="10m").ready_timeout_s == 600.0


def test_what_may_be_held_is_bounded() -> None:
    assert options(**recreate()).hold_bounds == HoldBounds(1000, 64 * 1024 * 1024, 30.0)
    hold = {"requests": 10, "bytes": "1KiB", "for": "5s"}
    assert options(**recreate(hold=hold)).hold_bounds == HoldBounds(10, 1024, 5.0)


def test_the_guard_watches_the_new_version_alone() -> None:
    planned = plan(guard={"p99": "1s"}, bake="10m")

    assert (planned.bake_s, planned.bakes_switched) == (600.0, True)
    assert planned.guard is not None
    assert [*planned.guard.rates()] == []
    assert [key for key, *_ in planned.guard.quantiles()] == ["p99"]


def test_all_requests_are_one_version_s() -> None:
    assert built(**recreate()).assign(Head(), 0.9).variant == "old"
    after = built(weights={"old": 0.0, "new": 1.0}, **recreate())
    assert after.assign(Head(), 0.0).variant == "new"


@pytest.mark.parametrize(
    ("changed", "place", "message"),
    [
        ({"to": "old"}, (), "from and to are the same backend, old"),
        ({"hold": {"for": "0s"}}, ("hold", "for"), "greater than 0"),
        ({"hold": {"longest": "1s"}}, ("hold", "longest"), "Extra inputs"),
        ({"guard": {"p99": "1.2x"}}, ("guard", "p99"), "write an absolute bound"),
    ],
)
def test_what_cannot_be_is_refused(
    changed: dict[str, Any], place: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        options(**recreate() | changed)
    error = caught.value.errors()[0]
    assert error["loc"] == place
    assert message in error["msg"]
