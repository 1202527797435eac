"""Two routers with one rollout on a real Redis: one leads, the other follows, and takes over."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.load import Stage, stage
from tests.faults.test_rollouts import RATE, canary, config, kinds, rollout, steer
from tests.redis_server import RedisServer, running
from tests.serve.harness import Router, poll

pytestmark = pytest.mark.process


@pytest.fixture
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    yield from running(str(tmp_path_factory.mktemp("redis")))


@contextmanager
def fleet(
    directory: Path, it: Stage, redis: RedisServer, policy: dict[str, Any]
) -> Iterator[tuple[Router, Router]]:
    """The router that leads, and the one that follows; both at the first step."""
    routers: list[Router] = []
    try:
        for name in "ab":
            place = directory / name
            place.mkdir()
            routers.append(Router(place, config(it, policy, state=redis.url)))
        for router in routers:
            router.ready()
        poll(lambda: all(rollout(router)["step"] == 0 for router in routers), "the first step")
        leader, follower = sorted(routers, key=lambda router: not rollout(router)["is_leader"])
        assert not rollout(follower)["is_leader"]
        yield leader, follower
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
