"""`balance:` and `slow_start:` in a worker: the picker gets what it wants, and is obeyed."""

import asyncio
from collections import Counter
from random import Random
from typing import Any

import pytest

from router.messages import EndpointState
from tests.data.harness import Lab, Origin, Received, Wire, document, eventually, request, response
from tests.data.scripted import Bench, Clock

USERS = [b"user-%d" % i for i in range(40)]
BY_USER = {"type": "ring_hash", "key": {"header": "x-user-id"}, "max_load": None}


async def answered_by(lab: Lab, *data: bytes) -> list[str]:
    """The bodies of the answers, asked for one after the other on one connection."""
    client = await lab.client()
    bodies = []
    for one in data:
        client.send(one)
        bodies.append((await client.message()).body.decode())
    client.close()
    return bodies


async def named(lab: Lab, *names: str) -> list[Origin]:
    """Endpoints that answer with their name."""
    return [await lab.answering(response(name.encode())) for name in names]


def of_users() -> list[bytes]:
    return [request(b"POST", b"/", b"x", b"x-user-id: " + user) for user in USERS]


async def test_a_user_stays_with_an_endpoint_on_any_connection_and_in_any_snapshot(
    lab: Lab,
) -> None:
    config = document(*await named(lab, "a", "b", "c"), balance=BY_USER)
    router = await lab.start(config)
    first = await answered_by(lab, *of_users())
    assert set(first) == {"a", "b", "c"}
    assert await answered_by(lab, *of_users()) == first
    await router.reload({**config, "drain_timeout": "7s"})
    assert await answered_by(lab, *of_users()) == first
    config["backends"]["v1"]["keep_alive"] = "29s"  # a pool of its own
    await router.reload(config)
    assert await answered_by(lab, *of_users()) == first


async def test_only_the_users_of_an_endpoint_that_is_down_move_and_they_come_back(
    lab: Lab,
) -> None:
    origins = await named(lab, "a", "b", "c")
    router = await lab.start(document(*origins, balance=BY_USER))
    first = await answered_by(lab, *of_users())
    router.send(EndpointState("v1", origins[0].url, "down", []))
    await eventually(lambda: len(router.pool().targets) == 2)
    without = await answered_by(lab, *of_users())
    assert "a" not in without
    assert all(now == was for now, was in zip(without, first, strict=True) if was != "a")
    router.send(EndpointState("v1", origins[0].url, "up", []))
    await eventually(lambda: len(router.pool().targets) == 3)
    assert await answered_by(lab, *of_users()) == first


@pytest.mark.parametrize(
    ("key", "data"),
    [
        ({"query": "session"}, request(b"GET", b"/?a=b&session=7")),
        ({"cookie": "sid"}, request(b"GET", b"/", None, b"cookie: sid=7")),
        ({"client_ip": True}, request()),
    ],
)
async def test_a_key_comes_from_where_the_config_says(
    lab: Lab, key: dict[str, Any], data: bytes
) -> None:
    origins = await named(lab, "a", "b", "c")
    await lab.start(document(*origins, balance={"type": "ring_hash", "key": key}))
    assert len(set(await answered_by(lab, *[data] * 20))) == 1


async def test_requests_without_a_key_are_spread(lab: Lab) -> None:
    await lab.start(document(*await named(lab, "a", "b"), balance=BY_USER))
    assert set(await answered_by(lab, *[request()] * 40)) == {"a", "b"}


async def test_a_hot_key_spreads_while_its_endpoint_is_busy(lab: Lab) -> None:
    busy: Counter[str] = Counter()
    may_go = asyncio.Event()

    async def slow(name: str) -> Origin:
        async def script(wire: Wire) -> None:
            await wire.message()
            busy[name] += 1
            await may_go.wait()
            wire.send(response(name.encode()))

        return await lab.origin(script)

    origins = [await slow(name) for name in "abcd"]
    await lab.start(document(*origins, balance={**BY_USER, "max_load": 1.25}))
    clients = [await lab.client() for _ in range(16)]
    for number, client in enumerate(clients):
        client.send(request(b"POST", b"/", b"x", b"x-user-id: hot"))
        await eventually(lambda number=number: busy.total() == number + 1)
    assert max(busy.values()) <= 5  # 1.25 x 16 / 4
    may_go.set()
    for client in clients:
        assert (await client.message()).status == 200


async def test_copies_go_to_the_endpoint_of_their_key_too(lab: Lab) -> None:
    (primary,) = await named(lab, "p")
    seen: dict[bytes, set[int]] = {user: set() for user in USERS}

    async def shadow(number: int) -> Origin:
        def answer(got: Received) -> bytes:
            seen[(got.field("x-user-id") or "").encode()].add(number)
            return response()

        return await lab.answering(answer)

    shadows = [await shadow(number) for number in range(3)]
    config = document(primary)
    config["backends"]["s"] = {"endpoints": [one.url for one in shadows], "balance": BY_USER}
    config["routes"][0]["shadow"] = [{"backend": "s", "sample": "100%"}]
    await lab.start(config)
    for _ in range(2):
        await answered_by(lab, *of_users())
    await eventually(lambda: sum(len(one.requests) for one in shadows) == 2 * len(USERS))
    assert all(len(numbers) == 1 for numbers in seen.values())
    assert set().union(*seen.values()) == {0, 1, 2}


async def test_round_robin_goes_round(lab: Lab) -> None:
    await lab.start(document(*await named(lab, "a", "b", "c"), balance="round_robin"))
    bodies = "".join(await answered_by(lab, *[request()] * 12))
    assert bodies[:3] * 4 == bodies
    assert set(bodies) == {"a", "b", "c"}


async def test_peak_ewma_is_told_how_long_answers_take(lab: Lab) -> None:
    async def late(wire: Wire) -> None:
        while True:
            await wire.message()
            await asyncio.sleep(0.05)
            wire.send(response(b"late"))

    origins = [*await named(lab, "a"), await lab.origin(late)]
    await lab.start(document(*origins, balance="peak_ewma"))
    bodies = await answered_by(lab, *[request(b"POST", b"/", b"x")] * 40)
    assert 1 <= bodies.count("late") <= 10


# slow start


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


URLS = ["http://127.0.0.1:1", "http://127.0.0.1:2"]


def with_a_new_one(**backend: Any) -> Bench:
    """The first of two endpoints has just come up."""
    bench = Bench(URLS, Random(1).random, slow_start="10s", **backend)
    assert [item.weight for item in bench.pool.endpoints] == [1.0, 1.0]  # up from the beginning
    bench.pool.set_state(URLS[0], "down")
    bench.pool.set_state(URLS[0], "up")
    return bench


def turn(bench: Bench, clock: Clock, seconds: float) -> None:
    for _ in range(round(seconds / 0.1)):
        clock.now += 0.1
        bench.loop.turn()


def test_an_endpoint_that_comes_up_gets_its_weight_in_steps(clock: Clock) -> None:
    bench = with_a_new_one()
    new, old = bench.pool.endpoints
    weights = [new.weight]
    for _ in range(120):
        turn(bench, clock, 0.1)
        weights.append(new.weight)
        assert old.weight == 1.0
    line = [min(1.0, 0.1 + 0.9 * tenths / 100) for tenths in range(121)]
    assert weights == sorted(weights)
    # a step of 0.09, which may be two ticks of the wheel late
    assert all(-1e-9 < on - weight < 0.12 for on, weight in zip(line, weights, strict=True))
    assert weights[-1] == 1.0
    assert 8 <= len(set(weights)) <= 11


def test_one_that_goes_down_meanwhile_begins_anew(clock: Clock) -> None:
    bench = with_a_new_one()
    new = bench.pool.endpoints[0]
    turn(bench, clock, 6)
    assert new.weight > 0.5
    bench.pool.set_state(URLS[0], "down")
    turn(bench, clock, 1)
    bench.pool.set_state(URLS[0], "up")
    assert new.weight == pytest.approx(0.1)
    turn(bench, clock, 12)
    assert new.weight == 1.0


def test_the_picker_learns_of_each_step(clock: Clock) -> None:
    bench = with_a_new_one(balance="round_robin")

    def share() -> float:
        picked = Counter(bench.pool.picker.pick(Random(3).random, b"").url for _ in range(1100))
        return picked[URLS[0]] / 1100

    shares = [share()]
    for _ in range(4):
        turn(bench, clock, 3)
        weight = bench.pool.endpoints[0].weight
        shares.append(share())
        assert shares[-1] == pytest.approx(weight / (1 + weight), abs=0.01)
    assert shares[0] == pytest.approx(0.1 / 1.1, abs=0.01)
    assert shares == sorted(set(shares))
    assert shares[-1] == pytest.approx(0.5, abs=0.01)
