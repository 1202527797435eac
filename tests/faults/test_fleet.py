"""Routers with one rollout on a real Redis: one leads, the others follow, and take over."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.load import Stage, stage
from tests.faults.test_rollouts import RATE, answered_by, canary, config, kinds, rollout, steer
from tests.redis_server import RedisServer, running
from tests.serve.harness import Router, poll

pytestmark = pytest.mark.process


@pytest.fixture
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    yield from running(str(tmp_path_factory.mktemp("redis")))


@contextmanager
def fleet(
    directory: Path, it: Stage, redis: RedisServer, policy: dict[str, Any], names: str = "ab"
) -> Iterator[list[Router]]:
    """The router that leads, and those that follow; all at the first step."""
    routers: list[Router] = []
    try:
        for name in names:
            place = directory / name
            place.mkdir()
            routers.append(Router(place, config(it, policy, state=redis.url)))
        for router in routers:
            router.ready()
        poll(lambda: all(rollout(router)["step"] == 0 for router in routers), "the first step")
        in_order = sorted(routers, key=lambda router: not rollout(router)["is_leader"])
        assert [rollout(router)["is_leader"] for router in in_order].count(True) == 1
        yield in_order
    finally:
        for router in routers:
            router.kill()


def test_what_one_router_measures_rolls_all_of_them_back(
    tmp_path: Path, redis: RedisServer
) -> None:
    policy = canary(steps=[{"weight": "10%", "hold": "1h"}])
    with stage(2) as it, fleet(tmp_path, it, redis, policy) as (leader, follower):
        with it.load(follower.listen, rate=RATE, connections=32) as traffic:
            traffic.more(400)
            it.endpoints[1].behave("errors", 1.0)
            for router in (leader, follower):
                poll(lambda router=router: rollout(router)["phase"] == "rolled_back", "rolled back")  # type: ignore[misc]  # a default binds it
            traffic.more(20)
            assert "b" not in {outcome.endpoint for outcome in traffic.more(200)}
        assert len(traffic.bad()) <= 4 * RATE * 0.10 * 1.25  # two seconds, and two to be heard
        assert kinds(leader) == kinds(follower) == ["started", "step", "rolled_back"]


def test_a_leader_that_dies_is_followed_where_it_was_and_no_step_is_taken_twice(
    tmp_path: Path, redis: RedisServer
) -> None:
    steps = [{"weight": "10%", "hold": "6s"}, {"weight": "20%", "hold": "1h"}]
    policy = canary(steps=steps, guard=None)
    with stage(2) as it, fleet(tmp_path, it, redis, policy) as (leader, follower):
        poll(lambda: rollout(follower)["held_s"] > 2, "followed")
        before = rollout(leader)
        leader.kill()
        poll(lambda: rollout(follower)["is_leader"], "taken over")
        after = rollout(follower)
        assert after["step"] == before["step"]
        assert before["held_s"] - 2 <= after["held_s"] < 6
        poll(lambda: rollout(follower)["step"] == 1, "the next step")
        assert kinds(follower) == ["started", "step", "step"]


def test_people_may_ask_any_router_and_a_redis_that_is_away_stops_nothing_but_steps(
    tmp_path: Path, redis: RedisServer
) -> None:
    policy = canary(steps=[{"weight": "50%", "hold": "1h"}], guard=None)
    with stage(2) as it, fleet(tmp_path, it, redis, policy) as (leader, follower):
        assert steer(follower, "pause")["changed"]
        poll(lambda: rollout(leader)["phase"] == "paused", "paused by the other")
        assert steer(leader, "resume")["changed"]
        with it.load(follower.listen, rate=RATE) as traffic:
            redis.kill()
            poll(lambda: rollout(leader)["stalled"] and rollout(follower)["stalled"], "stalled")
            traffic.more(100)
            redis.start()
            poll(lambda: not (rollout(leader)["stalled"] or rollout(follower)["stalled"]), "on")
        assert not traffic.bad()
        assert [rollout(router)["phase"] for router in (leader, follower)] == ["progressing"] * 2
        assert kinds(follower) == ["started", "step", "pause", "resume"]


TAKE_OVER_MAX_S = 10.0
"""What is promised."""


def test_leaders_are_killed_one_after_the_other_and_the_ramp_goes_on(
    tmp_path: Path, redis: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [{"weight": "10%", "hold": "8s"}, {"weight": "20%", "hold": "8s"}]
    policy = canary(steps=[*steps, {"weight": "50%", "hold": "1h"}], guard=None)
    with stage(2) as it, fleet(tmp_path, it, redis, policy, "abc") as routers:
        with ExitStack() as loads:
            traffic = {router: loads.enter_context(it.load(router.listen)) for router in routers}
            left = routers
            for round_ in range(2):
                leader, *left = sorted(left, key=lambda router: not rollout(router)["is_leader"])
                poll(lambda: rollout(leader)["held_s"] > 2, "a part of the hold")  # noqa: B023 - called in this round
                before = rollout(leader)
                leader.process.kill()  # its workers go on with the weights that they have
                killed_s = time.monotonic()
                poll(lambda: any(rollout(one)["is_leader"] for one in left), "another leads")  # noqa: B023 - as above
                took_s = time.monotonic() - killed_s
                with capsys.disabled():
                    print(f"taken over after {took_s:.2f} s")
                assert took_s < TAKE_OVER_MAX_S
                [heir] = [one for one in left if rollout(one)["is_leader"]]
                after = rollout(heir)
                assert (after["step"], before["step"]) == (round_, round_)
                assert before["held_s"] - 2 <= after["held_s"] <= before["held_s"] + 2
                poll(lambda: rollout(heir)["step"] == round_ + 1, "the next step")  # noqa: B023 - as above
            assert kinds(heir) == ["started", "step", "step", "step"]
            shares = [answered_by(load.more(400)) for load in traffic.values()]
        assert all(not load.bad() for load in traffic.values())
        assert shares[routers.index(heir)]["b"] > 120


def test_all_routers_agree_and_any_of_them_takes_orders(tmp_path: Path, redis: RedisServer) -> None:
    policy = canary(steps=[{"weight": "50%", "hold": "1h"}], guard=None)
    with stage(2) as it, fleet(tmp_path, it, redis, policy, "abc") as routers:
        leader, follower, other = routers
        command = [sys.executable, "-m", "router", "pause", "animals", "--admin", follower.admin]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        assert "animals: paused" in said.stdout
        for router in routers:
            poll(lambda router=router: rollout(router)["phase"] == "paused", "paused")  # type: ignore[misc]  # a default binds it
        assert [router.weights("animals") for router in routers] == [{"v1": 0.5, "v2": 0.5}] * 3
        name = leader.status()["state"]["router"]
        assert [rollout(router)["leader"] for router in routers] == [name] * 3
        assert other.metrics()["pointsman_state_reachable"] == 1
        redis.kill()
        poll(lambda: other.metrics()["pointsman_state_reachable"] == 0, "not reachable")
        assert "redis" in other.status()["state"]["failure"]
        redis.start()
        poll(lambda: other.metrics()["pointsman_state_reachable"] == 1, "reachable")


def test_the_password_of_redis_is_shown_nowhere(tmp_path: Path, redis: RedisServer) -> None:
    policy = canary(steps=[{"weight": "50%", "hold": "1h"}], guard=None)
    secret = "s3cret-of-redis"
    with stage(2) as it:
        url = redis.url.replace("://", "://user:${REDIS_PASSWORD}@")
        router = Router(tmp_path, config(it, policy, state=url), env={"REDIS_PASSWORD": secret})
        status = router.process.wait(30)  # Redis knows no such user
        log = router.log.read_text()
        assert status != 0 and "cannot use the state store redis://127.0.0.1" in log
        assert secret not in log
        redis.accept(secret)
        router = Router(tmp_path, config(it, policy, state=url), env={"REDIS_PASSWORD": secret})
        try:
            router.ready()
            router.write(config(it, policy, state=url.replace("/0", "/1")))
            poll(lambda: router.events("reload_refused"), "refused")
            shown = json.dumps(router.status()) + router.log.read_text()
        finally:
            router.kill()
        assert "state cannot change at run time" in shown
        assert secret not in shown
