"""Rollouts under load, with real processes: what goes wrong with the new version, and with us."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.failover.load import Outcome
from tests.faults.load import Stage, Traffic, stage
from tests.serve.harness import Router, call, document, poll, serving, total

pytestmark = pytest.mark.process

RATE = 400.0
"""Requests a second; each is a unit of its own."""
HEALTH = {"path": "/health", "interval": "100ms", "timeout": "1s"}
NO_EJECTION: dict[str, Any] = {"outlier": None}
"""What is looked at here is not how few of a bad version's answers ejection lets through."""


def config(it: Stage, policy: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """`v1` is the first half of the endpoints, `v2` the second."""
    half = len(it.endpoints) // 2
    urls = [endpoint.url for endpoint in it.endpoints]
    options = {"health": HEALTH, **NO_EJECTION}
    backends = {
        "v1": {"endpoints": urls[:half], **options},
        "v2": {"endpoints": urls[half:], **options},
    }
    routes = [{"name": "animals", "policy": policy}]
    return document([("v1", "")], routes=routes) | {"backends": backends} | changes


def canary(**policy: Any) -> dict[str, Any]:
    versions = {"type": "canary", "stable": "v1", "canary": "v2"}
    return {**versions, "sticky": {"header": "x-id"}, "guard": {}, **policy}


def rollout(router: Router) -> dict[str, Any]:
    found: dict[str, Any] = router.route("animals")["rollout"]
    return found


def until(router: Router, phase: str) -> dict[str, Any]:
    """The rollout, once it is in this phase; no other end is waited for."""

    def look() -> dict[str, Any]:
        now = rollout(router)
        assert now["phase"] == phase or now["phase"] not in ("rolled_back", "failed"), now
        return now if now["phase"] == phase else {}

    return poll(look, phase)


def steer(router: Router, action: str) -> dict[str, Any]:
    answer = call(router.admin, "POST", f"/routes/animals/{action}", {"by": "test"})
    assert answer.status == 200, answer
    document: dict[str, Any] = answer.json()
    return document


def kinds(router: Router) -> list[str]:
    events = call(router.admin, "GET", "/events").json()["events"]
    return [event["kind"] for event in events]


def answered_by(outcomes: list[Outcome]) -> Counter[str]:
    return Counter(outcome.endpoint for outcome in outcomes)


def has_left(traffic: Traffic, endpoint: str) -> None:
    """No request that begins from now on is answered by it."""
    traffic.more(100)  # those under way
    assert endpoint not in answered_by(traffic.more(200))


def test_a_canary_that_starts_failing_is_rolled_back_within_two_seconds_of_its_traffic(
    tmp_path: Path,
) -> None:
    policy = canary(steps=[{"weight": "10%", "hold": "1h"}])
    with stage(2) as it, serving(tmp_path, config(it, policy)) as router:
        until(router, "progressing")
        with it.load(router.listen, rate=RATE, connections=32) as traffic:
            poll(lambda: answered_by(traffic.outcomes)["b"] >= 200, "answers of the canary")
            it.endpoints[1].behave("errors", 1.0)
            poll(lambda: rollout(router)["phase"] == "rolled_back", "rolled back")
            has_left(traffic, "b")
        failed = traffic.bad()
        assert {(outcome.status, outcome.endpoint) for outcome in failed} == {(500, "b")}
        assert 5 <= len(failed) <= 2 * RATE * 0.10 * 1.25  # chance deals a quarter more at most
        assert kinds(router) == ["started", "step", "rolled_back"]
        print(f"{len(failed)} of {len(traffic.outcomes)} requests failed")


def test_a_canary_that_is_slower_by_a_third_is_rolled_back(tmp_path: Path) -> None:
    # the median is clear of what other work on the machine does to the slowest requests
    guard = {"p50": "1.1x", "p95": None, "min_requests": 50}
    policy = canary(steps=[{"weight": "50%", "hold": "1h"}], guard=guard)
    with stage(2) as it, serving(tmp_path, config(it, policy)) as router:
        it.endpoints[0].behave("slow", 0.200)
        it.endpoints[1].behave("slow", 0.266)
        until(router, "progressing")
        with it.load(router.listen, rate=RATE / 2, connections=80) as traffic:
            poll(lambda: rollout(router)["phase"] == "rolled_back", "rolled back")
            has_left(traffic, "b")
        assert not traffic.bad()
        assert "p50" in rollout(router)["reason"]


def test_an_equal_canary_is_promoted_step_by_step(tmp_path: Path) -> None:
    steps = [{"weight": "20%", "hold": "1s"}, {"weight": "50%", "hold": "1s"}]
    policy = canary(steps=steps, bake="1s", guard={"min_requests": 50, "negligible": "3%"})
    with stage(2) as it, serving(tmp_path, config(it, policy)) as router:
        for endpoint in it.endpoints:
            endpoint.behave("slow", 0.01)
        with it.load(router.listen, rate=RATE, connections=32) as traffic:
            promoted = until(router, "promoted")
            has_left(traffic, "a")
        assert not traffic.bad()
        assert promoted["edit"] == "policy: {type: single, backend: v2}"
        assert kinds(router) == ["started", "step", "step", "baking", "promoted"]
        [line] = router.events("rollout_promoted")
        assert line["edit"] == promoted["edit"]


def test_a_killed_control_goes_on_where_it_was_and_an_edit_elsewhere_disturbs_nothing(
    tmp_path: Path,
) -> None:
    state = f"sqlite://{tmp_path}/state.db"
    steps = [{"weight": "20%", "hold": "1s"}, {"weight": "50%", "hold": "1h"}]
    with stage(2) as it:
        base = config(it, canary(steps=steps, guard=None), state=state)
        first = Router(tmp_path, base)
        second: Router | None = None
        try:
            first.ready()
            poll(lambda: rollout(first)["step"] == 1 and rollout(first)["held_s"] > 2, "2 s held")
            first.write_and_wait(base | {"drain_timeout": "9s"})
            with it.load(first.listen, rate=RATE) as traffic:
                before = rollout(first)
                first.process.kill()
                first.wait()
                meanwhile = answered_by(traffic.more(300))
                address = {"listen": first.listen, "drain_timeout": "9s"}
                second = Router(tmp_path, base | address).ready()
                after = rollout(second)
                more = answered_by(traffic.more(300))
            assert not traffic.bad()
            assert (after["step"], after["weights"]) == (before["step"], {"v1": 0.5, "v2": 0.5})
            assert after["held_s"] >= before["held_s"] - 1.25
            assert min(meanwhile["a"], meanwhile["b"], more["a"], more["b"]) >= 100
            assert kinds(second) == ["started", "step", "step", "reload"]
        finally:
            first.kill()
            if second is not None:
                second.kill()


def test_blue_green_switches_at_once_and_back_by_itself_when_the_new_colour_fails(
    tmp_path: Path,
) -> None:
    policy = {"type": "blue_green", "active": "v1", "preview": "v2", "bake": "1h"}
    policy["guard"] = {"max_error_rate": "1%"}  # type: ignore[assignment]  # a nested literal
    with stage(2) as it, serving(tmp_path, config(it, policy)) as router:
        with it.load(router.listen, rate=RATE, connections=32) as traffic:
            assert answered_by(traffic.more(100)).keys() == {"a"}
            assert steer(router, "switch")["changed"]
            until(router, "baking")
            assert not steer(router, "switch")["changed"]
            has_left(traffic, "a")
            assert not traffic.bad()
            it.endpoints[1].behave("errors", 1.0)
            poll(lambda: rollout(router)["phase"] == "rolled_back", "switched back")
            has_left(traffic, "b")
        assert len(traffic.bad()) <= 2 * RATE * 1.25
        assert {outcome.endpoint for outcome in traffic.bad()} == {"b"}


def test_endpoints_are_exchanged_under_load_and_no_request_fails(tmp_path: Path) -> None:
    policy = {"type": "rolling", "from": "v1", "to": "v2", "hold": "500ms"}
    with stage(6) as it, serving(tmp_path, config(it, policy | {"start": "manual"})) as router:
        with it.load(router.listen, connections=16) as traffic:
            assert answered_by(traffic.more(200)).keys() == set("abc")
            steer(router, "promote")
            poll(lambda: rollout(router)["step"] == 1, "the second batch")
            assert answered_by(traffic.more(300)).keys() & set("def") == set("de")
            until(router, "promoted")
            traffic.more(20)
            assert answered_by(traffic.more(300)).keys() == set("def")
        assert not traffic.bad()
        states = {
            one["url"]: one["state"] for one in router.status()["backends"]["v1"]["endpoints"]
        }
        assert set(states.values()) == {"draining"}


def test_requests_wait_while_the_old_version_ends_and_none_fails(tmp_path: Path) -> None:
    policy = {"type": "recreate", "from": "v1", "to": "v2"}
    with stage(2) as it, serving(tmp_path, config(it, policy)) as router:
        old, new = it.endpoints
        old.behave("slow", 0.02)
        it.run(new.down())
        with it.load(router.listen, rate=RATE, connections=64) as traffic:
            assert answered_by(traffic.more(100)).keys() == {"a"}
            steer(router, "switch")
            poll(lambda: "healthy" in rollout(router)["reason"], "waits for the new version")
            assert rollout(router)["held"]
            it.run(old.down())  # nothing is in flight on it
            it.run(new.up())
            until(router, "promoted")
            assert answered_by(traffic.more(300)[100:]).keys() == {"b"}
        assert not traffic.bad()
        assert total(router.metrics(), "pointsman_held_total") >= 1
