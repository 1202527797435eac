"""Requests that wait while their route is held, and how each of them ends."""

from typing import Any

import pytest

from router.data import holding
from router.data.holding import Line, share_of
from router.messages import Drain, EndpointState, Weights
from router.policies.base import HoldBounds
from router.rollouts.measured import FIRST_BYTE, LATENCY, bucket_of
from tests.data.acts import Held, acting, answer
from tests.data.harness import Lab, Origin, Received, Router, Wire, eventually, request
from tests.data.tls import TlsLab

OLD = {"v1": 1.0, "v2": 0.0}
NEW = {"v1": 0.0, "v2": 1.0}
PIECE = bytes(range(256)) * 256


def recreate(v1: Origin, v2: Origin, **hold: Any) -> dict[str, Any]:
    """A route whose version is recreated, from `v1` to `v2`."""
    policy = {"type": "recreate", "from": "v1", "to": "v2", "hold": hold}
    return {
        "backends": {"v1": {"endpoints": [v1.url]}, "v2": {"endpoints": [v2.url]}},
        "routes": [{"name": "all", "policy": policy}],
    }


class Change:
    """A router whose route is held from the start; `v2` answers with what it is asked for."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.version = 0

    async def start(self, hold: dict[str, Any] | None = None, **prepare: Any) -> "Change":
        self.v1, self.v2 = await self.lab.answering(), await self.lab.answering()
        self.config = recreate(self.v1, self.v2, **(hold or {}))
        self.config["backends"]["v2"]["limits"] = {"connections": 1}  # what it gets is in order
        await self.lab.start(self.config, **{"held": ["all"], **prepare})
        return self

    @property
    def router(self) -> Router:
        return self.lab.router

    @property
    def line(self) -> Line:
        return self.router.worker.holding.line("all")

    def say(self, weights: dict[str, float], *, is_held: bool) -> None:
        self.version += 1
        self.router.send(Weights("all", self.version, weights, is_held))

    def release(self) -> None:
        self.say(NEW, is_held=False)

    async def waiting(self, data: bytes, *, wire: Wire | None = None) -> Wire:
        """A client whose request is in the line."""
        before = len(self.line)
        wire = wire or await self.lab.client()
        wire.send(data)
        await eventually(lambda: len(self.line) == before + 1)
        return wire

    async def counted(self, **outcomes: int) -> None:
        await self.router.reported(
            lambda: all(
                self.router.counted("held", "all", outcome) == count
                for outcome, count in outcomes.items()
            )
        )
        assert sum(outcomes.values()) == sum(
            self.router.counted("held", "all", item) for item in ("released", "refused", "left")
        )


@pytest.fixture
def change(lab: Lab) -> Change:
    return Change(lab)


def post(body: bytes, *, of: int | None = None) -> bytes:
    """A request that brings `body`, the beginning of `of` bytes."""
    return b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (of or len(body), body)


# until it is released


async def test_requests_wait_and_go_in_order_to_what_is_then_in_force(change: Change) -> None:
    await change.start()
    clients = [await change.waiting(request(b"GET", b"/%d" % n)) for n in range(5)]
    await change.router.reported(lambda: change.router.gauges.get("pointsman_held_requests") == 5)
    assert not change.v1.requests
    change.release()
    answers = [await client.message() for client in clients]
    assert [got.field("x-router-variant") for got in answers] == ["v2"] * 5
    firsts = [got.first for got in change.v2.requests]
    assert firsts == [b"GET /%d HTTP/1.1" % n for n in range(5)]
    await change.counted(released=5)
    await change.router.reported(lambda: change.router.gauges.get("pointsman_held_requests") == 0)


async def test_a_route_is_held_and_released_while_it_serves(change: Change) -> None:
    await change.start(held=[])
    assert (await change.lab.ask(request())).field("x-router-variant") == "v1"
    change.say(OLD, is_held=True)
    binding = change.router.worker.snapshot.binding("all")
    await eventually(lambda: binding is not None and binding.line is not None)
    client = await change.waiting(request())
    change.release()
    assert (await client.message()).field("x-router-variant") == "v2"
    assert (await change.lab.ask(request())).field("x-router-variant") == "v2"


async def test_who_is_held_again_on_the_way_out_stays_in_order(
    change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    await change.start()
    monkeypatch.setattr(holding, "BURST", 2)
    clients = [await change.waiting(request(b"GET", b"/%d" % n)) for n in range(6)]
    change.say(NEW, is_held=False)  # two go at once, the others would in the next rounds
    change.say(NEW, is_held=True)
    await eventually(lambda: len(change.v2.requests) == 2)
    await change.router.flush()
    assert len(change.line) == 4
    change.release()
    assert [(await client.message()).status for client in clients] == [200] * 6
    await change.counted(released=6)


async def test_a_large_line_goes_in_bursts(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    await change.start()
    monkeypatch.setattr(holding, "BURST", 3)
    clients = [await change.waiting(request()) for _ in range(10)]
    binding = change.router.worker.snapshot.binding("all")
    assert binding is not None
    binding.hold(None)
    change.line.release()
    assert len(change.line) == 7
    assert [(await client.message()).status for client in clients] == [200] * 10


async def test_only_a_policy_that_says_how_much_may_wait_is_ever_held(lab: Lab) -> None:
    v1 = await lab.answering()
    config = recreate(v1, v1)
    config["routes"][0] = {"name": "all", "backend": "v1"}
    router = await lab.start(config, held=["all"])
    router.send(Weights("all", 1, {"v1": 1.0}, is_held=True))
    await router.flush()
    assert (await lab.ask(request())).status == 200


async def test_other_routes_go_on(change: Change) -> None:
    await change.start()
    other = {"name": "other", "match": {"path": "/other"}, "backend": "v1"}
    await change.router.reload(
        {**change.config, "routes": [*change.config["routes"], other]}, held=["all"]
    )
    waiting = await change.waiting(request())
    assert (await change.lab.ask(request(b"GET", b"/other"))).status == 200
    change.release()
    assert (await waiting.message()).status == 200


# bounds


async def test_more_requests_than_allowed_are_refused_and_told_when_to_come_back(
    change: Change,
) -> None:
    await change.start({"requests": 2})
    clients = [await change.waiting(request()) for _ in range(2)]
    got = await change.lab.ask(request())
    assert (got.status, got.problem(), got.field("retry-after")) == (503, "held-too-many", "5")
    change.release()
    assert [(await client.message()).status for client in clients] == [200, 200]
    await change.counted(released=2, refused=1)
    assert change.router.requests["all", "", "5xx"] == 1
    assert change.router.counted("refused", "held-too-many") == 1


async def test_more_bytes_than_allowed_are_refused(change: Change) -> None:
    await change.start({"bytes": 1500})
    client = await change.waiting(post(b"x" * 1000))
    assert (await change.lab.ask(post(b"x" * 1000))).problem() == "held-too-many"
    change.release()
    assert (await client.message()).status == 200


async def test_the_bytes_of_who_left_count_no_longer(change: Change) -> None:
    await change.start({"bytes": 1500})
    client = await change.waiting(post(b"x" * 1000))
    client.close()
    await eventually(lambda: not len(change.line))
    client = await change.waiting(post(b"x" * 1000))
    change.release()
    assert (await client.message()).status == 200


async def test_many_whose_time_is_over_are_told_in_bursts(
    change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    await change.start()
    clients = [await change.waiting(request()) for _ in range(5)]
    monkeypatch.setattr(holding, "BURST", 2)
    monkeypatch.setattr(holding, "LOOK_S", 1000.0)  # there is one more look
    change.line.end_by(0.0)
    assert [(await client.message()).problem() for client in clients] == ["held-too-long"] * 5


async def test_a_request_waits_no_longer_than_allowed(change: Change) -> None:
    await change.start({"for": "50ms"})
    clients = [await change.lab.sent(request()) for _ in range(5)]
    for client in clients:
        got = await client.message()
        assert (got.status, got.problem(), got.field("retry-after")) == (503, "held-too-long", "5")
    change.release()
    clients[0].send(request())  # the connection is as good as before
    assert (await clients[0].message()).status == 200
    await change.counted(refused=5)


@pytest.mark.parametrize(
    ("workers", "share"),
    [(1, HoldBounds(10, 100, 3.0)), (3, HoldBounds(4, 34, 3.0)), (50, HoldBounds(1, 2, 3.0))],
)
def test_a_worker_has_its_share_of_the_bounds(workers: int, share: HoldBounds) -> None:
    assert share_of(HoldBounds(10, 100, 3.0), workers) == share


async def test_control_says_how_many_workers_share_the_bounds(change: Change) -> None:
    await change.start({"requests": 10}, workers=10)
    client = await change.waiting(request())
    assert (await change.lab.ask(request())).problem() == "held-too-many"
    client.close()
    await change.counted(left=1, refused=1)


# clients


@pytest.mark.parametrize("data", [request(), post(b"half", of=8)], ids=["whole", "incomplete"])
async def test_a_client_that_leaves_leaves_the_line(change: Change, data: bytes) -> None:
    await change.start({"requests": 1})
    client = await change.waiting(data)
    client.close()
    await eventually(lambda: not len(change.line))
    client = await change.waiting(request())
    change.release()
    assert (await client.message()).status == 200
    assert len(change.v2.requests) == 1
    await change.counted(left=1, released=1)
    assert change.router.counted("client_aborts", "all", "") == 1


async def test_of_a_body_no_more_is_read_than_came_with_the_head(change: Change) -> None:
    await change.start()
    body = PIECE * 256
    client = await change.lab.client()
    client.send(post(body[:1000], of=len(body)))
    await eventually(lambda: len(change.line) == 1)
    client.send(body[1000:])
    (downstream,) = change.router.connections
    assert not downstream.transport.is_reading()
    assert change.line._bytes < 2000
    change.release()
    assert (await client.message()).status == 200
    assert change.v2.requests[0].body == body


async def test_a_chunked_body_arrives_unchanged(change: Change) -> None:
    await change.start()
    client = await change.waiting(
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
    )
    client.send(b"2\r\nde\r\n0\r\n\r\n")
    change.release()
    assert (await client.message()).status == 200
    assert change.v2.requests[0].body == b"abcde"


async def test_a_client_is_told_to_continue_only_by_who_answers(change: Change) -> None:
    await change.start()
    client = await change.waiting(
        b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
    )
    assert client.unread == b""
    change.release()
    await eventually(lambda: change.v2.wires)
    client.send(b"ok")
    assert (await client.message()).status == 200


async def test_requests_ahead_of_their_turn_keep_it(change: Change) -> None:
    await change.start()
    client = await change.waiting(request(b"GET", b"/1") + request(b"GET", b"/2"))
    assert len(change.line) == 1
    change.release()
    assert [(await client.message()).status for _ in range(2)] == [200, 200]
    assert [got.first.split()[1] for got in change.v2.requests] == [b"/1", b"/2"]


async def test_an_http10_client_gets_what_it_understands(change: Change) -> None:
    await change.start()
    client = await change.waiting(b"GET / HTTP/1.0\r\n\r\n")
    change.release()
    assert (await client.message()).status == 200
    assert await client.is_ended()
    assert change.v2.requests[0].field("host") == f"127.0.0.1:{change.v2.port}"


async def test_an_upgrade_waits_like_everything_else(lab: Lab) -> None:
    async def script(wire: Wire) -> None:
        await wire.head()
        wire.send(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        )
        wire.send(await wire.exactly(2))

    change = Change(lab)
    change.v1, change.v2 = await lab.answering(), await lab.origin(script)
    await lab.start(recreate(change.v1, change.v2), held=["all"])
    client = await change.waiting(
        b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhi"
    )
    change.release()
    assert (await client.head()).status == 101
    assert await client.exactly(2) == b"hi"


async def test_a_copy_is_made_of_what_was_held(change: Change) -> None:
    await change.start()
    shadow = await change.lab.answering()
    backends = {**change.config["backends"], "shadow": {"endpoints": [shadow.url]}}
    route = {**change.config["routes"][0], "shadow": [{"backend": "shadow", "sample": "100%"}]}
    await change.router.reload({"backends": backends, "routes": [route]}, held=["all"])
    client = await change.waiting(post(b"body"))
    assert not shadow.requests
    change.release()
    assert (await client.message()).status == 200
    await eventually(lambda: shadow.requests)
    assert shadow.requests[0].body == b"body"


async def test_clients_that_speak_tls_are_held_and_missed_too(tls_lab: TlsLab) -> None:
    change = Change(tls_lab.lab)
    change.v1, change.v2 = await change.lab.answering(), await change.lab.answering()
    config = tls_lab.listening(recreate(change.v1, change.v2))
    await change.lab.start(config, pem=tls_lab.texts(config), held=["all"])
    gone, client = await tls_lab.connect(), await tls_lab.connect()
    await gone.shake()
    await change.waiting(post(b"half", of=8), wire=gone)
    gone.close()
    await eventually(lambda: not len(change.line))
    await client.shake()
    await change.waiting(request(), wire=client)
    change.release()
    assert (await client.message()).status == 200
    await change.counted(left=1, released=1)


# what happens meanwhile


async def test_a_reload_that_holds_on_keeps_who_waits(change: Change) -> None:
    await change.start({"requests": 1})
    client = await change.waiting(request())
    await change.router.reload(
        recreate(change.v1, change.v2, requests=2), held=["all"], weights={"all": OLD}
    )
    further = await change.waiting(request())
    change.release()
    assert [(await item.message()).status for item in (client, further)] == [200, 200]


async def test_a_reload_that_does_not_releases_them(change: Change) -> None:
    await change.start()
    client = await change.waiting(request())
    config = {**change.config, "routes": [{"name": "new", "backend": "v1"}]}
    await change.router.reload(config)
    got = await client.message()
    assert (got.field("x-router-route"), got.field("x-router-variant")) == ("new", "v1")


async def test_who_waited_for_a_route_that_is_gone_is_told_so(change: Change) -> None:
    await change.start()
    client = await change.waiting(request())
    routes = [{"name": "new", "match": {"path": "/new"}, "backend": "v1"}]
    await change.router.reload({**change.config, "routes": routes})
    assert (await client.message()).problem() == "no-route"


async def test_weights_that_come_while_a_config_is_built_hold_there_too(change: Change) -> None:
    await change.start(held=[])
    assert (await change.router.prepare(change.config)).error is None
    change.say(OLD, is_held=True)
    await change.router.commit()
    client = await change.waiting(request())
    change.release()
    assert (await client.message()).status == 200


@pytest.mark.parametrize(
    "data",
    [
        post(b"body"),
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\ncontent-length: 4\r\n\r\nbody",
    ],
    ids=["length", "chunked", "http10"],
)
async def test_who_waits_for_an_endpoint_that_is_taken_out_waits_with_the_others(
    lab: Lab, data: bytes
) -> None:
    change = Change(lab)
    busy = Held(answer())
    change.v1, change.v2 = await acting(lab, busy), await lab.answering()
    config = recreate(change.v1, change.v2)
    config["backends"]["v1"]["limits"] = {"connections": 1}
    await lab.start(config)
    served = await lab.sent(request())
    await eventually(lambda: change.v1.requests)
    assigned = await lab.sent(data)
    await eventually(lambda: change.router.pool("v1").pending)
    change.say(OLD, is_held=True)
    change.router.send(EndpointState("v1", change.v1.url, "drain", []))
    await eventually(lambda: len(change.line) == 1)
    busy.go.set()
    assert (await served.message()).field("x-router-variant") == "v1"
    change.release()
    assert (await assigned.message()).field("x-router-variant") == "v2"
    assert change.v2.requests[0].body == b"body"
    assert change.v2.requests[0].raw.count(b"body") == 1
    await change.counted(released=1)


async def test_what_waited_in_the_line_is_no_time_of_the_new_version(
    change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    await change.start()
    client = await change.waiting(request())
    for place in change.line._places.values():
        place.since_s -= 1000.0
    for connection in change.router.connections:
        connection.handler._started_s -= 1000.0  # type: ignore[union-attr]  # an exchange
    change.release()
    assert (await client.message()).status == 200
    key = ("all", "v2")
    await change.router.reported(lambda: key in change.router.measured)
    measured = change.router.measured[key].distributions
    for name in (LATENCY, FIRST_BYTE):
        (bucket,) = measured[name]
        assert bucket < bucket_of(100.0)


# the end


async def test_a_worker_that_leaves_tells_who_still_waits(change: Change) -> None:
    await change.start()
    client = await change.waiting(request())
    change.router.send(Drain(0.0, 0.2))
    got = await client.message()
    assert (got.problem(), got.field("connection")) == ("held-too-long", "close")
    await change.router.left()


async def test_who_comes_while_a_worker_leaves_is_told_in_time_too(change: Change) -> None:
    await change.start()
    client = await change.lab.client()
    await eventually(lambda: change.router.connections)
    change.router.send(Drain(0.0, 1.0, has_successor=True))
    await eventually(lambda: change.router.worker.is_draining)
    client.send(request())
    assert (await client.message()).problem() == "held-too-long"
    await change.router.left()


async def test_what_is_released_while_a_worker_leaves_is_answered(change: Change) -> None:
    await change.start()
    client = await change.waiting(request())
    change.router.send(Drain(0.0, 20.0))
    await eventually(lambda: change.router.worker.is_draining)
    change.release()
    got: Received = await client.message()
    assert (got.status, got.field("connection")) == (200, "close")
    await change.router.left()


async def test_a_bug_costs_the_one_who_meets_it(
    change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    await change.start()
    clients = [await change.waiting(request(b"GET", b"/%d" % n)) for n in range(3)]
    bugs: list[Exception] = []
    monkeypatch.setattr(change.router.worker.outbox, "report_bug", bugs.append)
    (exchange, *_) = change.line._places

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(exchange, "start", fail)
    change.release()
    assert [(await client.message()).status for client in clients] == [500, 200, 200]
    assert len(bugs) == 1
