"""One of three endpoints fails, in every way, while requests go on to all."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.failover import load
from benchmarks.failover.endpoint import Endpoint
from benchmarks.failover.load import Outcome
from tests.faults.load import Stage, Traffic, accounted, stage
from tests.serve.harness import Router, document, poll, serving, total

pytestmark = pytest.mark.process

CONNECTIONS = 16
FLAPS = 6
QUICK = {"connect": "1s", "first_byte": "500ms", "idle": "500ms"}
HEALTH = {"path": "/health", "interval": "100ms", "timeout": "100ms", "unhealthy_after": 2}
UNLIMITED_RETRIES = {"budget_min": 1000, "backoff": "1ms", "backoff_max": "1ms"}
"""What is looked at here is not the budget."""
NO_EJECTION: dict[str, Any] = {"outlier": None}


def config(it: Stage, **backend: Any) -> dict[str, Any]:
    base = document([("models", "")], routes=[{"name": "all", "backend": "models"}])
    options = {"timeout": QUICK, "retry": UNLIMITED_RETRIES} | backend
    return base | {"backends": {"models": it.backend(**options)}}


def under_fault(
    it: Stage, router: Router, mode: str, argument: float = 0.0, count: int = 300
) -> Traffic:
    """Load while the first endpoint behaves like that, all of it accounted for."""
    before = router.metrics()
    it.endpoints[0].behave(mode, argument)
    with it.load(router.listen, connections=CONNECTIONS) as traffic:
        traffic.more(count)
    accounted(it, traffic, router, before)
    return traffic


def ids(outcomes: list[Outcome]) -> set[str]:
    return {outcome.id for outcome in outcomes}


def only_resets(traffic: Traffic, endpoint: Endpoint) -> int:
    """How many failed, all because that endpoint's connection was reset when the POST was out."""
    for outcome in traffic.bad():
        assert (outcome.kind, outcome.status) == (load.REFUSED, 502)
        assert outcome.detail.startswith(f"upstream-reset: {endpoint.url}"), outcome
    return len(traffic.bad())


@pytest.mark.parametrize("mode", ["reset-head", "stale", "closing"])
def test_a_connection_lost_before_the_answer_fails_no_get_and_only_posts_sent_on_it(
    tmp_path: Path, mode: str
) -> None:
    with stage(3) as it, serving(tmp_path, config(it, **NO_EJECTION)) as router:
        traffic = under_fault(it, router, mode)
        assert not traffic.bad_gets()
        assert only_resets(traffic, it.endpoints[0]) <= len(traffic.outcomes) / 4


@pytest.mark.parametrize("mode", ["errors", "garbage", "reset-head"])
def test_an_endpoint_that_fails_is_ejected_and_what_it_failed_stays_few(
    tmp_path: Path, mode: str
) -> None:
    with stage(3) as it, serving(tmp_path, config(it)) as router:
        traffic = under_fault(it, router, mode, 1.0)
        assert total(router.metrics(), "pointsman_ejections_total", backend="models") >= 1
        assert len(traffic.bad()) <= 3 * CONNECTIONS
        assert {outcome.endpoint for outcome in traffic.outcomes[-100:]} == {"b", "c"}


def test_past_its_limit_a_backend_is_spared_and_what_is_refused_is_told_when_to_come_again(
    tmp_path: Path,
) -> None:
    limits = {"in_flight": 4, "pending": 0}
    with stage(1) as it, serving(tmp_path, config(it, limits=limits)) as router:
        traffic = under_fault(it, router, "slow", 0.01)
        assert {(o.kind, o.status) for o in traffic.bad()} == {(load.REFUSED, 503)}
        refused = total(router.metrics(), "pointsman_limited_total", backend="models")
        assert refused == len(traffic.bad())
        assert it.endpoints[0].most_at_once <= 4


@pytest.mark.parametrize("mode", ["garbage", "reset-body", "cut-chunks"])
def test_a_broken_answer_is_refused_or_visibly_broken_and_never_looks_good(
    tmp_path: Path, mode: str
) -> None:
    with stage(3) as it, serving(tmp_path, config(it, **NO_EJECTION)) as router:
        traffic = under_fault(it, router, mode)
        assert traffic.bad()
        kinds = {(o.kind, o.status) for o in traffic.bad()}
        assert kinds == {(load.REFUSED, 502)} if mode == "garbage" else {(load.FAILED, 200)}
        assert not [o for o in traffic.outcomes if o.is_good and o.endpoint == "a"]


def test_a_hanging_endpoint_costs_a_504_for_what_it_was_sent_and_nothing_else(
    tmp_path: Path,
) -> None:
    with stage(3) as it, serving(tmp_path, config(it, **NO_EJECTION)) as router:
        traffic = under_fault(it, router, "hang", count=60)
        assert {(o.kind, o.status) for o in traffic.bad()} == {(load.REFUSED, 504)}
        assert ids(traffic.bad()) <= it.endpoints[0].delivered.keys()


@pytest.mark.parametrize(("mode", "argument"), [("drip", 0.0005), ("slow", 0.02), ("serial", 200)])
def test_a_slow_endpoint_fails_nothing(tmp_path: Path, mode: str, argument: float) -> None:
    with stage(3) as it, serving(tmp_path, config(it)) as router:
        assert not under_fault(it, router, mode, argument).bad()


def test_an_endpoint_that_dies_fails_no_get_and_only_posts_in_flight_on_it(
    tmp_path: Path,
) -> None:
    with stage(3) as it, serving(tmp_path, config(it)) as router:
        before = router.metrics()
        with it.load(router.listen, connections=CONNECTIONS) as traffic:
            it.run(it.endpoints[0].down())
            traffic.more(300)
            assert {o.endpoint for o in traffic.more(100)} == {"b", "c"}
        accounted(it, traffic, router, before)
        assert not traffic.bad_gets()
        assert only_resets(traffic, it.endpoints[0]) <= CONNECTIONS


def test_a_flapping_endpoint_fails_no_get_and_only_posts_in_flight_on_it(
    tmp_path: Path,
) -> None:
    with stage(3) as it, serving(tmp_path, config(it, health=HEALTH)) as router:
        before = router.metrics()
        flapping = it.endpoints[0]
        with it.load(router.listen, connections=CONNECTIONS) as traffic:
            for _ in range(FLAPS):
                it.run(flapping.down())
                traffic.more(80)
                it.run(flapping.up())
                traffic.more(80)
        accounted(it, traffic, router, before)
        assert not traffic.bad_gets()
        assert only_resets(traffic, flapping) <= CONNECTIONS * FLAPS


def test_when_all_are_down_requests_are_refused_and_served_again_once_one_is_back(
    tmp_path: Path,
) -> None:
    with stage(3) as it, serving(tmp_path, config(it, health=HEALTH)) as router:
        before = router.metrics()
        with it.load(router.listen, connections=CONNECTIONS) as traffic:
            for endpoint in it.endpoints:
                it.run(endpoint.down())
            for outcome in traffic.more(200)[100:]:
                assert (outcome.kind, outcome.status // 100) == (load.REFUSED, 5)
            it.run(it.endpoints[0].up())
            poll(lambda: all(outcome.is_good for outcome in traffic.more(50)), "served again")
        accounted(it, traffic, router, before)


def test_a_checked_endpoint_that_hangs_gets_nothing_more_until_it_answers_again(
    tmp_path: Path,
) -> None:
    with stage(3) as it, serving(tmp_path, config(it, health=HEALTH, **NO_EJECTION)) as router:
        before = router.metrics()
        with it.load(router.listen, connections=CONNECTIONS) as traffic:
            it.endpoints[0].behave("hang")
            poll(lambda: router.events("endpoint_down"), "down")
            poll(lambda: all(o.is_good for o in traffic.more(100)), "nothing caught any more")
            it.endpoints[0].behave("ok")
            poll(lambda: "a" in {o.endpoint for o in traffic.more(100)}, "in use again")
        accounted(it, traffic, router, before)
        assert ids(traffic.bad()) <= it.endpoints[0].delivered.keys()
