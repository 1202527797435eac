from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from router.config.model import Config
from router.control.endpoints import Endpoints, State
from router.control.probe import Target
from router.messages import Ejection, EndpointState, Stats
from tests.control.support import Pushed, eventually, loaded

A, B = "http://a.example:1", "http://127.0.0.1:2"
PLACE_A, PLACE_B = ("v1", A), ("v1", B)
CHECK = {"path": "/ready", "interval": "100ms", "healthy_after": 1, "unhealthy_after": 1}
ADDRESSES = ["10.0.0.1", "10.0.0.2"]


def config_of(*urls: str, **backend: Any) -> Config:
    v1 = {"endpoints": list(urls or (A, B)), "resolve": 0, **backend}
    return loaded(backends={"v1": v1, "v2": {"endpoints": [B]}}).config


class World:
    """What endpoints are like, as the test sets it."""

    def __init__(self) -> None:
        self.failure: str | None = None
        self.addresses: list[str] = list(ADDRESSES)
        self.now_s = 1000.0

    async def probe(self, target: Target) -> str | None:
        return self.failure if target.url == A else None

    async def look_up(self, name: str) -> Iterable[str]:
        return self.addresses


@asynccontextmanager
async def endpoints_of(config: Config) -> AsyncIterator[tuple[Endpoints, World, Pushed]]:
    world, pushed = World(), Pushed()
    endpoints = Endpoints(pushed, world.probe, world.look_up, Random(1), lambda: world.now_s)
    assert endpoints.states(config) == {}  # as the first workers are told
    endpoints.adopt(config)
    yield endpoints, world, pushed
    await endpoints.close()


def ejection(is_ejected: bool = True, url: str = A) -> Ejection:
    return Ejection(0, "v1", url, is_ejected, "consecutive-failures", 1030.0)


async def test_a_config_is_told_by_itself_and_then_only_what_changes() -> None:
    async with endpoints_of(config_of(health=CHECK)) as (endpoints, world, pushed):
        endpoints.adopt(config_of(health=CHECK))
        assert pushed == []
        world.failure = "refused"
        await eventually(lambda: pushed == [EndpointState("v1", A, "down", [])])
        assert endpoints.states(config_of(health=CHECK)) == {"v1": {A: ["down", []]}}
        belief = endpoints.belief(PLACE_A)
        assert (belief.state, belief.since_s, belief.reason) == (State.DOWN, 1000.0, "refused")
        world.failure = None
        await eventually(lambda: pushed[1:] == [EndpointState("v1", A, "up", [])])


async def test_addresses_go_to_workers_with_the_state() -> None:
    async with endpoints_of(config_of(resolve="100ms")) as (endpoints, world, pushed):
        await eventually(lambda: pushed == [EndpointState("v1", A, "up", ADDRESSES)])
        config = config_of(resolve="100ms", keep_alive="9s")
        assert endpoints.states(config) == {"v1": {A: ["up", ADDRESSES]}}
        endpoints.adopt(config)
        world.addresses = ["10.0.0.3"]
        await eventually(lambda: pushed[1:] == [EndpointState("v1", A, "up", ["10.0.0.3"])])
        belief = endpoints.belief(PLACE_A)
        assert belief.resolved is not None
        assert belief.resolved.addresses == ("10.0.0.3",)
        endpoints.adopt(config_of())  # from now on connect by name
        assert pushed[2:] == [EndpointState("v1", A, "up", [])]
        assert endpoints.belief(PLACE_A).resolved is None


async def test_what_changed_while_workers_built_a_config_is_told_when_it_is_adopted() -> None:
    async with endpoints_of(config_of(B)) as (endpoints, world, pushed):
        world.failure = "refused"
        config = config_of(A, B, health=CHECK)
        await endpoints.meet(config)
        assert endpoints.states(config) == {"v1": {A: ["down", []]}}
        world.failure = None
        await eventually(lambda: endpoints.takes_requests(PLACE_A))
        assert pushed == []  # workers do not know it yet
        endpoints.adopt(config)
        assert pushed == [EndpointState("v1", A, "up", [])]


async def test_a_drained_endpoint_stays_so_over_reloads_as_long_as_it_is_there() -> None:
    async with endpoints_of(config_of()) as (endpoints, world, pushed):
        assert endpoints.drain(PLACE_A)
        assert not endpoints.drain(PLACE_A)
        assert pushed == [EndpointState("v1", A, "drain", [])]
        world.now_s = 2000.0
        for _ in range(2):
            endpoints.adopt(config_of(keep_alive="9s"))
        assert endpoints.states(config_of()) == {"v1": {A: ["drain", []]}}
        belief = endpoints.belief(PLACE_A)
        assert (belief.state, belief.since_s) == (State.DRAINING, 1000.0)
        endpoints.adopt(config_of(B))
        endpoints.adopt(config_of())
        assert endpoints.belief(PLACE_A).state is State.UP


async def test_undraining_is_told_once() -> None:
    async with endpoints_of(config_of()) as (endpoints, _, pushed):
        assert not endpoints.undrain(PLACE_A)
        endpoints.drain(PLACE_A)
        assert endpoints.undrain(PLACE_A)
        assert pushed[1:] == [EndpointState("v1", A, "up", [])]


async def test_checks_do_not_bring_a_drained_endpoint_back() -> None:
    async with endpoints_of(config_of(health=CHECK)) as (endpoints, world, pushed):
        endpoints.drain(PLACE_A)
        world.failure = "refused"
        await eventually(lambda: not endpoints.health.state_of(PLACE_A).is_up)  # type: ignore[union-attr]  # it is checked
        belief = endpoints.belief(PLACE_A)
        assert belief.state is State.DRAINING
        assert belief.reason == "drained; its checks fail: refused"
        assert pushed == [EndpointState("v1", A, "drain", [])]
        endpoints.undrain(PLACE_A)
        assert pushed[1:] == [EndpointState("v1", A, "down", [])]


async def test_what_is_in_flight_is_known_when_every_worker_has_told() -> None:
    async with endpoints_of(config_of()) as (endpoints, _, _pushed):
        endpoints.on_stats(11, Stats(0, 0))
        endpoints.on_stats(12, Stats(1, 0))
        assert endpoints.belief(PLACE_A).in_flight is None
        endpoints.drain(PLACE_A)
        endpoints.on_stats(11, Stats(0, 0, endpoints=[["v1", A, 2]]))
        assert endpoints.belief(PLACE_A).in_flight is None
        endpoints.on_stats(12, Stats(1, 0, endpoints=[["v1", A, 1]]))
        assert endpoints.belief(PLACE_A).in_flight == 3
        endpoints.on_stats(11, Stats(0, 0, endpoints=[["v1", A, 0]]))
        endpoints.forget_worker(12)
        assert endpoints.belief(PLACE_A).in_flight == 0
        assert endpoints.belief(PLACE_B).in_flight is None


async def test_ejections_are_shown_by_how_many_workers_and_never_told_back() -> None:
    async with endpoints_of(config_of(health=CHECK)) as (endpoints, world, pushed):
        endpoints.on_ejection(11, ejection())
        world.now_s = 1001.0
        endpoints.on_ejection(12, ejection())
        belief = endpoints.belief(PLACE_A)
        assert (belief.state, belief.since_s, belief.ejected_by) == (State.EJECTED, 1000.0, 2)
        assert belief.reason == "consecutive-failures"
        endpoints.on_ejection(11, ejection(is_ejected=False))
        assert endpoints.belief(PLACE_A).ejected_by == 1
        endpoints.on_ejection(11, ejection(is_ejected=False))  # once more is no harm
        endpoints.forget_worker(12)
        assert endpoints.belief(PLACE_A).state is State.UP
        assert pushed == []


async def test_an_ejection_ends_by_itself_and_with_its_endpoint() -> None:
    async with endpoints_of(config_of()) as (endpoints, world, _pushed):
        endpoints.on_ejection(11, ejection())
        world.now_s = 1031.0
        assert endpoints.belief(PLACE_A).state is State.UP
        world.now_s = 1001.0
        endpoints.adopt(config_of(B))
        endpoints.adopt(config_of())
        assert endpoints.belief(PLACE_A).state is State.UP


async def test_every_endpoint_of_the_config_in_force_is_listed() -> None:
    async with endpoints_of(config_of()) as (endpoints, _, _pushed):
        assert [place for place, _ in endpoints.all()] == [PLACE_A, PLACE_B, ("v2", B)]


def reported(in_flight: int, url: str = A) -> Stats:
    return Stats(0, 0, endpoints=[["v1", url, in_flight]])


async def test_an_endpoint_that_a_rollout_keeps_idle_gets_nothing_new_until_its_turn() -> None:
    async with endpoints_of(config_of(A, B)) as (endpoints, world, pushed):
        endpoints.set_idle("animals", frozenset({PLACE_A}))
        assert pushed == [EndpointState("v1", A, "drain", [])]
        assert endpoints.states(config_of(A, B)) == {"v1": {A: ["drain", []]}}
        assert not endpoints.takes_requests(PLACE_A)
        assert endpoints.is_ready(PLACE_A)
        belief = endpoints.belief(PLACE_A)
        assert (belief.state, belief.since_s) == (State.DRAINING, 1000.0)
        assert belief.reason == "not in turn: rollout of animals"
        assert belief.in_flight is None
        endpoints.on_stats(1, reported(2))
        assert endpoints.belief(PLACE_A).in_flight == 2
        world.now_s += 1
        endpoints.set_idle("animals", frozenset({PLACE_A, ("v1", B)}))
        assert endpoints.belief(PLACE_A).since_s == 1000.0
        endpoints.set_idle("animals", frozenset())
        assert {(m.url, m.state) for m in pushed[2:]} == {(A, "up"), (B, "up")}


async def test_an_endpoint_that_only_failed_so_far_is_not_ready_though_it_is_not_down_yet() -> None:
    async with endpoints_of(config_of(health=CHECK | {"unhealthy_after": 100})) as (ends, world, _):
        world.failure = "refused"
        await eventually(lambda: ends.health.results["v1", "failure"] > 1)
        assert ends.takes_requests(PLACE_A)
        assert not ends.is_ready(PLACE_A)
        world.failure = None
        await eventually(lambda: ends.is_ready(PLACE_A))


async def test_an_endpoint_is_ready_when_a_check_passed_and_nobody_took_it_out() -> None:
    async with endpoints_of(config_of(health=CHECK)) as (endpoints, world, _):
        assert not endpoints.is_ready(PLACE_A)  # not checked yet
        await eventually(lambda: endpoints.is_ready(PLACE_A))
        assert not endpoints.is_ready(("v1", "http://127.0.0.1:3"))  # not in the config
        endpoints.drain(PLACE_A)
        assert not endpoints.is_ready(PLACE_A)
        endpoints.undrain(PLACE_A)
        endpoints.on_ejection(1, ejection())
        assert not endpoints.is_ready(PLACE_A)
        world.now_s = 1031.0  # the ejection is over
        assert endpoints.is_ready(PLACE_A)
        world.failure = "refused"
        await eventually(lambda: not endpoints.is_ready(PLACE_A))
