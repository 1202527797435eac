"""Leases and reports of a fleet, on a real Redis."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from router.control.fleet import REPORTS_MAX, Report
from router.control.redis_fleet import LEASE_S, RedisFleet
from router.errors import StateError
from router.rollouts.measured import Measured
from tests.redis_server import RedisServer, running


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    yield from running(str(tmp_path_factory.mktemp("redis")))


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Fleets:
    """Routers on one Redis, each with a clock of its own; `prefix` keeps tests apart."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url = f"{url}?prefix={prefix}"
        self.client = Redis.from_url(url)
        self._prefix = prefix
        self.made: list[RedisFleet] = []

    def router(self, name: str, clock: Clock | None = None) -> RedisFleet:
        fleet = RedisFleet(self.url, name, clock or Clock())
        self.made.append(fleet)
        return fleet

    async def left_ms(self, route: str) -> int:
        """How long the lease of a route still lasts."""
        return int(await self.client.pttl(self._lease(route)))

    async def shorten(self, route: str, ms: int) -> None:
        """Let the lease of a route end in `ms`."""
        await self.client.pexpire(self._lease(route), ms)

    def _lease(self, route: str) -> str:
        return f"{{{self._prefix}}}:lease:{route}"


@pytest.fixture
async def fleets(redis: RedisServer, request: pytest.FixtureRequest) -> AsyncIterator[Fleets]:
    fleets = Fleets(redis.url, f"t{abs(hash(request.node.name))}")
    yield fleets
    for fleet in fleets.made:
        await fleet.close()
    await fleets.client.aclose()


def report(router: str, requests: int) -> Report:
    measured = Measured(requests, {"errors": [requests, 1]}, {"latency": {-3: requests}})
    return Report(router, 7, {"v2": measured}, {("v1", "http://a:1"): 3})


async def test_one_router_leads_and_the_others_do_not(fleets: Fleets) -> None:
    a, b = fleets.router("a"), fleets.router("b")
    assert await a.lead("r") == 1
    assert await b.lead("r") is None
    assert await a.lead("r") == 1
    assert await b.lead("another") == 1


async def test_a_leader_that_leaves_is_followed_at_once_under_a_higher_fence(
    fleets: Fleets,
) -> None:
    a, b = fleets.router("a"), fleets.router("b")
    await a.lead("r")
    await a.close()
    assert await b.lead("r") == 2


async def test_a_dead_leader_is_followed_when_its_lease_ends(fleets: Fleets) -> None:
    a, b = fleets.router("a"), fleets.router("b")
    await a.lead("r")
    assert 0 < await fleets.left_ms("r") <= LEASE_S * 1000
    await fleets.shorten("r", 50)
    tries = 0
    while (fence := await b.lead("r")) is None:
        tries += 1
        assert tries < 100
        await asyncio.sleep(0.02)
    assert fence == 2


async def test_a_leader_renews_its_lease_and_rarely_asks(fleets: Fleets) -> None:
    clock = Clock()
    a = fleets.router("a", clock)
    await a.lead("r")
    await fleets.shorten("r", 2000)
    assert await a.lead("r") == 1
    assert await fleets.left_ms("r") <= 2000
    clock.now_s += 1.5
    assert await a.lead("r") == 1
    assert await fleets.left_ms("r") > 2000


async def test_reports_of_all_come_once_each_in_order(fleets: Fleets) -> None:
    a, b = fleets.router("a"), fleets.router("b")
    nothing, cursor = await a.gather("r", "")
    await a.share("r", report("a", 1))
    await b.share("r", report("b", 2))
    await a.share("r", report("a", 3))
    first, after = await a.gather("r", cursor)
    again, _ = await b.gather("r", cursor)
    rest, same = await a.gather("r", after)
    assert nothing == [] and rest == [] and same == after
    assert first == again == [report("a", 1), report("b", 2), report("a", 3)]


async def test_a_rollout_that_begins_reads_nothing_that_was_before(fleets: Fleets) -> None:
    a = fleets.router("a")
    await a.share("r", report("a", 1))
    nothing, cursor = await a.gather("r", "")
    await a.share("r", report("a", 2))
    assert nothing == []
    assert (await a.gather("r", cursor))[0] == [report("a", 2)]


async def test_a_report_whose_acknowledgement_got_lost_counts_once(fleets: Fleets) -> None:
    a = fleets.router("a")
    _, cursor = await a.gather("r", "")
    await a.share("r", report("a", 1))
    a._unsent["r"].waiting.append((1, "what was sent already"))
    await a.share("r", report("a", 2))
    assert (await a.gather("r", cursor))[0] == [report("a", 1), report("a", 2)]


async def test_without_redis_reports_wait_are_bounded_and_go_in_order_later(
    tmp_path: Path,
) -> None:
    servers = running(str(tmp_path))
    server = next(servers)
    clock = Clock()
    fleet = RedisFleet(server.url, "a", clock)
    _, cursor = await fleet.gather("r", "")
    server.kill()
    for n in range(REPORTS_MAX + 5):
        with pytest.raises(StateError, match="redis"):
            await fleet.share("r", report("a", n))
    with pytest.raises(StateError, match="redis"):
        await fleet.lead("r")
    server.start()
    with pytest.raises(StateError, match="redis"):  # not asked again at once
        await fleet.lead("r")
    clock.now_s += 1
    await fleet.share("r", report("a", -1))
    gathered, _ = await fleet.gather("r", cursor)
    await fleet.close()
    servers.close()
    numbers = [item.block["v2"].requests for item in gathered]
    assert numbers == [*range(6, REPORTS_MAX + 5), -1]
    assert fleet.dropped == 6
