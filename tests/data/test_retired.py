"""What becomes of connections and requests when a reload changes a backend."""

import asyncio
import gc
import weakref
from math import inf
from typing import Any

import pytest

from router.messages import Ejection, EndpointState
from tests.data.harness import Lab, Origin, Router, Wire, document, eventually, request, response

STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nhost: model.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"


async def held(lab: Lab, go_on: asyncio.Event) -> Origin:
    """An endpoint that answers the first time at once, and then when it may."""

    async def script(wire: Wire) -> None:
        while True:
            asked = await origin.next_request(wire)
            if asked.first.startswith(b"GET /held"):
                await go_on.wait()
            wire.send(response())

    origin = await lab.origin(script)
    return origin


async def saying(lab: Lab, head: bytes) -> Origin:
    """An endpoint that begins an answer and does not end it."""

    async def script(wire: Wire) -> None:
        await origin.next_request(wire)
        wire.send(head)

    origin = await lab.origin(script)
    return origin


def soon_cut(*origins: Origin, **backend: Any) -> dict[str, Any]:
    return {**document(*origins, **backend), "drain_timeout": "50ms"}


async def test_an_endpoint_that_stays_keeps_its_idle_connection(lab: Lab) -> None:
    origin, added = await lab.answering(), await lab.answering()
    router = await lab.start(document(origin))
    await lab.ask(request())
    await router.reload(document(origin, added))
    router.send(EndpointState("v1", added.url, "down", []))
    await lab.ask(request())
    await router.reload(document(origin, limits={"pending": 7}))
    await lab.ask(request())
    assert (origin.accepted, len(origin.requests)) == (1, 3)


async def test_a_connection_that_is_busy_during_the_reload_is_kept_when_it_is_done(
    lab: Lab,
) -> None:
    go_on = asyncio.Event()
    origin = await held(lab, go_on)
    router = await lab.start(document(origin))
    client = await lab.client()
    client.send(request(b"GET", b"/held"))
    await eventually(lambda: len(origin.requests) == 1)
    for pending in (7, 8):  # two reloads while it is busy
        await router.reload(document(origin, limits={"pending": pending}))
    go_on.set()
    assert (await client.message()).status == 200
    await lab.ask(request())
    assert (origin.accepted, len(origin.requests)) == (1, 2)
    assert repr(router.pool().endpoints[0]).endswith("[up | 1 open: 0 busy, 1 idle]>")


@pytest.mark.parametrize("change", [{"keep_alive": "20s"}, {"endpoints": ["http://127.0.0.1:1"]}])
async def test_a_connection_that_is_not_what_the_new_config_asks_for_is_closed(
    lab: Lab, change: dict[str, Any]
) -> None:
    origin = await lab.answering()
    router = await lab.start(document(origin))
    await lab.ask(request())
    await router.reload(document(origin, **change))
    await eventually(lambda: origin.wires[0].ended.is_set())


async def test_an_endpoint_that_drains_gets_no_connection_of_the_earlier_pool(lab: Lab) -> None:
    origin, other = await lab.answering(), await lab.answering()
    router = await lab.start(document(origin))
    await lab.ask(request())
    states = {"v1": {origin.url: ["drain", []]}}
    await router.reload(document(origin, other), endpoints=states)
    await eventually(lambda: origin.wires[0].ended.is_set())
    await lab.ask(request())
    assert (len(origin.requests), len(other.requests)) == (1, 1)


async def test_a_request_on_a_removed_endpoint_is_finished(lab: Lab) -> None:
    go_on = asyncio.Event()
    old, new = await held(lab, go_on), await lab.answering()
    router = await lab.start(document(old))
    client = await lab.client()
    client.send(request(b"GET", b"/held"))
    await eventually(lambda: len(old.requests) == 1)
    await router.reload(document(new))
    go_on.set()
    assert (await client.message()).status == 200
    await eventually(lambda: old.wires[0].ended.is_set())


async def test_a_stream_on_a_removed_endpoint_is_cut_when_its_time_is_over(lab: Lab) -> None:
    old, new = await saying(lab, STREAM), await lab.answering()
    router = await lab.start(soon_cut(old))
    client = await lab.client()
    client.send(request())
    await client.until(b"one\r\n")
    await router.reload(soon_cut(new))
    assert await client.is_ended()
    assert client.unread == b""  # nothing that looks like an end
    await router.flush()
    assert router.counted("upstream_failures", "v1", "removed") == 1
    assert router.counted("truncated", "all", "v1") == 1


async def test_a_request_without_an_answer_on_a_removed_endpoint_is_refused_once(lab: Lab) -> None:
    old, new = await saying(lab, b""), await lab.answering()
    router = await lab.start(soon_cut(old))
    client = await lab.client()
    client.send(request())
    await eventually(lambda: len(old.requests) == 1)
    await router.reload(soon_cut(new))
    got = await client.message()
    assert (got.status, got.problem()) == (504, "upstream-removed")
    assert (len(old.requests), new.requests) == (1, [])


async def test_a_websocket_ends_with_its_endpoint_and_not_with_a_change_of_its_backend(
    lab: Lab,
) -> None:
    old, gone = await saying(lab, SWITCH), await saying(lab, SWITCH)
    new = await lab.answering()
    router = await lab.start(soon_cut(old, gone))
    clients = []
    for other, one in ((gone, old), (old, gone)):
        router.send(EndpointState("v1", other.url, "down", []))
        router.send(EndpointState("v1", one.url, "up", []))
        await router.flush()
        clients.append(await lab.sent(UPGRADE))
        assert (await clients[-1].head()).status == 101
        assert len(one.requests) == 1
    await router.reload(soon_cut(old, limits={"pending": 7}))
    client, cut = clients
    assert await cut.is_ended()  # so its time is over, and the other had no less
    client.send(b"still there")
    await eventually(lambda: old.wires[0].unread.endswith(b"still there"))
    await router.reload(soon_cut(new))
    assert await client.is_ended()


async def test_a_stream_on_a_draining_endpoint_is_cut_when_its_time_is_over(lab: Lab) -> None:
    old, new = await saying(lab, STREAM), await lab.answering()
    router = await lab.start(soon_cut(old))
    streams = [await lab.client(), await lab.client()]
    streams[0].send(request())
    await streams[0].until(b"one\r\n")
    await router.reload(soon_cut(old, new))  # the first is in a retired pool now
    router.send(EndpointState("v1", new.url, "down", []))
    streams[1].send(request())
    await streams[1].until(b"one\r\n")
    router.send(EndpointState("v1", new.url, "up", []))
    router.send(EndpointState("v1", old.url, "drain", []))
    for stream in streams:
        assert await stream.is_ended()
        assert stream.unread == b""
    await router.flush()
    assert router.counted("upstream_failures", "v1", "removed") == 2


async def test_a_stream_goes_on_when_its_endpoint_is_taken_back_in_time(lab: Lab) -> None:
    back, gone = await saying(lab, STREAM), await saying(lab, STREAM)
    router = await lab.start(soon_cut(back, gone))
    streams = []
    for asked, other in ((back, gone), (gone, back)):
        router.send(EndpointState("v1", asked.url, "up", []))
        router.send(EndpointState("v1", other.url, "down", []))
        await router.flush()
        streams.append(await lab.client())
        streams[-1].send(request())
        await streams[-1].until(b"one\r\n")
    for url, state in ((back.url, "drain"), (back.url, "up"), (gone.url, "drain")):
        router.send(EndpointState("v1", url, state, []))
    assert await streams[1].is_ended()  # its time began later, so that of the other is over too
    assert not back.wires[0].ended.is_set()
    streams[0].reset()


async def test_nothing_is_left_of_a_hundred_reloads(lab: Lab) -> None:
    origins = [await lab.answering() for _ in range(2)]
    router = await lab.start(document(origins[0]))
    for turn in range(100):
        await lab.ask(request())
        await router.reload(document(origins[turn % 2], limits={"pending": turn}))
    assert router.worker._retired._pools == []


async def test_what_is_in_flight_on_draining_endpoints_is_told(lab: Lab) -> None:
    go_on = asyncio.Event()
    origin, other = await held(lab, go_on), await lab.answering()
    router = await lab.start(document(origin))
    assert (await router.flush()).endpoints == []
    client = await lab.client()
    client.send(request(b"GET", b"/held"))
    await eventually(lambda: len(origin.requests) == 1)
    await router.reload(document(origin, other))  # it is busy in the retired pool
    router.send(EndpointState("v1", origin.url, "drain", []))
    assert (await router.flush()).endpoints == [["v1", origin.url, 1]]
    assert (await lab.ask(request())).status == 200
    assert len(other.requests) == 1
    go_on.set()
    await client.message()
    assert (await router.flush()).endpoints == [["v1", origin.url, 0]]
    router.send(EndpointState("v1", origin.url, "up", []))
    assert (await router.flush()).endpoints == []


async def test_an_ejected_endpoint_stays_ejected_when_its_backend_changes(lab: Lab) -> None:
    bad = await lab.answering(response(status=b"500 Broken"))
    good = await lab.answering()
    outlier = {"consecutive_failures": 3, "failure_share": "100%"}
    router = await lab.start(document(bad, good, outlier=outlier))
    client = await lab.client()
    while not any(endpoint.is_ejected for endpoint in router.pool().endpoints):
        client.send(request())
        await client.message()
    met = len(bad.requests)
    for pending in (7, 8):
        await router.reload(document(bad, good, outlier=outlier, limits={"pending": pending}))
    for _ in range(20):
        client.send(request())
        assert (await client.message()).status == 200
    assert len(bad.requests) == met
    ejection = await router.received(Ejection)
    assert (ejection.url, ejection.is_ejected) == (bad.url, True)
    assert not any(isinstance(message, Ejection) for message in router.messages)
    endpoint = router.pool().endpoints[0]
    assert endpoint.deadline < inf
    endpoint.on_deadline()
    assert not (await router.received(Ejection)).is_ejected


async def test_a_retired_pool_is_freed_with_its_last_request_and_leaves_no_garbage(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Router, "remember", lambda router: None)  # it would keep the pools
    go_on = asyncio.Event()
    origin, other = await held(lab, go_on), await lab.answering()
    router = await lab.start(document(origin))
    idle, client = await lab.client(), await lab.client()
    idle.send(request())
    await idle.message()
    client.send(request(b"GET", b"/held"))
    await eventually(lambda: len(origin.requests) == 2)
    gc.disable()
    try:
        busy, endpoint = weakref.ref(router.pool()), weakref.ref(router.pool().endpoints[0])
        await router.reload(document(other))
        unused = weakref.ref(router.pool())
        await router.reload(document(other, limits={"pending": 7}))
        assert unused() is None
        await router.flush()
        assert busy() is not None
        go_on.set()
        assert (await client.message()).status == 200
        await router.flush()
        assert busy() is None
        assert endpoint() is None
    finally:
        gc.enable()
