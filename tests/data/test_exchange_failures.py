"""Endpoints and clients that fail, in every phase of an exchange."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial

import pytest

from router.data.exchange import Exchange
from router.messages import EndpointState
from tests.data.acts import Held, answer, say
from tests.data.harness import (
    Lab,
    Origin,
    Received,
    Wire,
    document,
    eventually,
    request,
    response,
    soon,
)

HALF_BODIES = {
    "length": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
    "chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\nhalf",
    "until close": b"HTTP/1.1 200 OK\r\n\r\nhalf",
}


@asynccontextmanager
async def _deaf() -> AsyncIterator[str]:
    """The URL of a listener whose queue is full, so that connecting hangs."""
    with socket.socket() as listener, ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(2):
            sock = waiting.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(address)
        yield f"http://127.0.0.1:{address[1]}"


def _has_come(origin: Origin, end: bytes) -> bool:
    """The bytes that the endpoint got end so."""
    return bool(origin.wires) and origin.wires[0].received.endswith(end)


async def never(wire: Wire) -> None:
    """Takes a request and says nothing."""
    await wire.message()


# the endpoint is lost


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 2"], ids=["nothing", "half a head"])
@pytest.mark.parametrize("is_reset", [True, False], ids=["reset", "closed"])
async def test_an_endpoint_lost_before_its_head_ended_is_a_502(
    lab: Lab, start: bytes, is_reset: bool
) -> None:
    async def script(wire: Wire) -> None:
        await wire.message()
        wire.send(start)
        await wire.drained()
        if is_reset:
            wire.reset()
        else:
            wire.writer.close()

    origin = await lab.origin(script)
    router = await lab.start(document(origin))
    client = await lab.client()
    client.send(request(b"POST", b"/", b"x"))
    got = await client.message()
    assert (got.status, got.problem()) == (502, "upstream-reset")
    assert got.field("connection") is None  # the client may go on
    assert origin.accepted == 1
    await router.flush()
    assert router.counted("upstream_failures", "v1", "reset") == 1
    assert router.requests == {("all", "v1", "5xx"): 1}


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("framing", HALF_BODIES)
async def test_a_response_cut_short_never_looks_whole(
    lab: Lab, framing: str, version: bytes
) -> None:
    cut = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.message()
        wire.send(HALF_BODIES[framing])
        await cut.wait()
        wire.reset()

    router = await lab.start(document(await lab.origin(script)))
    client = await lab.client()
    client.send(b"GET / HTTP/%b\r\nhost: m\r\n\r\n" % version)
    assert (await client.head()).status == 200
    await client.until(b"half")
    cut.set()
    assert await client.is_broken()
    await router.flush()
    assert router.counted("truncated", "all", "v1") == 1
    assert router.requests == {("all", "v1", "5xx"): 1}


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_clean_close_in_mid_body_is_a_cut_as_well(lab: Lab, framing: str) -> None:
    async def script(wire: Wire) -> None:
        await wire.message()
        wire.send(HALF_BODIES[framing])
        await wire.drained()
        wire.writer.close()

    await lab.start(document(await lab.origin(script)))
    client = await lab.client()
    client.send(request())
    assert await client.is_broken()


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnot hex\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 17,
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000,
    ],
    ids=["garbage", "field", "two framings", "switch", "chunk", "interims", "long"],
)
async def test_an_answer_that_is_not_http_is_a_502(lab: Lab, answer: bytes) -> None:
    origin = await lab.answering(answer)
    router = await lab.start(document(origin))
    client = await lab.client()
    client.send(request())
    while (got := await client.message(has_body=True)).status < 200:
        pass
    assert (got.status, got.problem()) == (502, "upstream-malformed")
    await soon(origin.wires[0].ended.wait())
    await router.flush()
    assert router.counted("upstream_failures", "v1", "malformed") == 1


# connecting


async def test_a_refused_connection_is_tried_elsewhere_with_any_method(lab: Lab) -> None:
    alive = await lab.answering()
    dead = await lab.refusing()
    router = await lab.start(document(dead, alive))
    for _ in range(8):
        assert (await lab.ask(request(b"POST", b"/", b"x"))).status == 200
    await router.flush()
    assert len(alive.requests) == 8
    assert router.requests == {("all", "v1", "2xx"): 8}


async def test_when_every_endpoint_refuses_it_is_a_502(lab: Lab) -> None:
    router = await lab.start(document(await lab.refusing(), await lab.refusing()))
    got = await lab.ask(request(b"POST", b"/", b"x"))
    assert (got.status, got.problem()) == (502, "upstream-connect")
    await router.flush()
    assert router.counted("retries", "v1", "connect") == 2
    assert router.counted("upstream_failures", "v1", "connect") == 3


async def test_a_name_that_cannot_be_resolved_is_a_502(lab: Lab) -> None:
    config = document()
    config["backends"]["v1"]["endpoints"] = ["http://" + "a" * 64 + ".invalid:80"]
    await lab.start(config)
    got = await lab.ask(request())
    assert (got.status, got.problem()) == (502, "upstream-connect")


async def test_a_connection_that_is_not_accepted_in_time_is_a_504(lab: Lab) -> None:
    async with _deaf() as url:
        config = document(timeout={"connect": "50ms"})
        config["backends"]["v1"]["endpoints"] = [url]
        router = await lab.start(config)
        got = await lab.ask(request())
        assert (got.status, got.problem()) == (504, "upstream-connect-timeout")
        await router.flush()
        assert router.counted("upstream_failures", "v1", "connect-timeout") == 3


# too slow


async def test_no_answer_in_time_is_a_504_and_the_endpoint_sees_the_end(lab: Lab) -> None:
    origin = await lab.origin(never)
    router = await lab.start(document(origin, timeout={"first_byte": "50ms"}))
    got = await lab.ask(request())
    assert (got.status, got.problem()) == (504, "upstream-first-byte-timeout")
    await soon(origin.wires[0].ended.wait())
    assert origin.accepted == 1  # it may be at work on it: not asked again
    await router.flush()
    assert router.counted("upstream_failures", "v1", "first-byte-timeout") == 1


@pytest.mark.parametrize("framing", HALF_BODIES)
async def test_an_answer_that_stops_in_its_middle_is_cut(lab: Lab, framing: str) -> None:
    async def script(wire: Wire) -> None:
        await wire.message()
        wire.send(HALF_BODIES[framing])

    await lab.start(document(await lab.origin(script), timeout={"idle": "50ms"}))
    client = await lab.client()
    client.send(request())
    assert (await client.head()).status == 200
    assert await client.is_broken()


async def _idle_time_passes(lab: Lab) -> None:
    """It does for an endpoint that stops in its middle, so it has for who was quiet before."""
    client = await lab.sent(request(b"GET", b"/stops"))
    assert (await client.head()).status == 200
    assert await client.is_broken()


async def test_the_wait_for_an_answer_is_not_cut_by_the_idle_time(lab: Lab) -> None:
    """Not even when the endpoint took the end of the request late."""
    waited = Held(answer())

    async def script(wire: Wire) -> None:
        asked = await origin.next_request(wire)
        await (waited if asked.body else say(HALF_BODIES["length"]))(wire)

    origin = await lab.origin(script)
    router = await lab.start(document(origin, timeout={"idle": "50ms", "first_byte": "60s"}))
    client = await lab.sent(request(b"POST", b"/", b"x"))
    await eventually(lambda: origin.requests)
    (connection,) = router.connections
    assert isinstance(connection.handler, Exchange)
    connection.handler.on_upstream_paused()
    connection.handler.on_upstream_resumed()
    await _idle_time_passes(lab)
    waited.go.set()
    assert (await client.message()).status == 200


async def test_a_client_slower_than_the_idle_time_is_not_the_endpoints_fault(lab: Lab) -> None:
    def respond(asked: Received) -> bytes:
        return response() if asked.body else HALF_BODIES["length"]

    origin = await lab.answering(respond)
    router = await lab.start(document(origin, timeout={"idle": "50ms"}))
    client = await lab.sent(request(b"POST", b"/", None, b"content-length: 3"))
    for piece in (b"x", b"y"):
        client.send(piece)
        await eventually(partial(_has_come, origin, piece))
        await _idle_time_passes(lab)
    client.send(b"z")
    assert (await client.message()).status == 200
    await router.flush()
    assert router.requests == {("all", "v1", "2xx"): 1, ("all", "v1", "5xx"): 2}


# the client leaves


@pytest.mark.parametrize("is_reset", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize("separate", [True, False], ids=["body apart", "body along"])
async def test_a_client_that_leaves_before_the_answer_cancels_the_work(
    lab: Lab, is_reset: bool, separate: bool
) -> None:
    origin = await lab.origin(never)
    router = await lab.start(document(origin))
    client = await lab.client()
    data = request(b"POST", b"/", b"hello")
    if separate:
        client.send(data[:-5])
        await eventually(lambda: router.worker.in_flight == 1)
        client.send(data[-5:])
    else:
        client.send(data)
    await eventually(lambda: origin.wires and origin.wires[0].received.endswith(b"hello"))
    if is_reset:
        client.reset()
    else:
        client.close()
    await soon(origin.wires[0].ended.wait())
    await eventually(lambda: router.worker.in_flight == 0)
    await router.flush()
    assert router.requests == {("all", "v1", "abort"): 1}
    assert router.counted("client_aborts", "all", "v1") == 1
    assert router.counted("upstream_failures", "v1", "reset") == 0


async def test_a_client_whose_body_came_while_connecting_is_missed_when_it_leaves(
    lab: Lab,
) -> None:
    """Head and body in two reads, the second before there is a connection."""
    origin = await lab.origin(never)
    router = await lab.start(document(origin))
    client = await lab.client()
    client.send(b"POST / HTTP/1.1\r\n")
    await eventually(lambda: router.connections)
    (downstream,) = router.connections
    await eventually(lambda: downstream._buffer)
    downstream.data_received(b"host: m\r\ncontent-length: 5\r\n\r\n")
    downstream.data_received(b"hello")  # in the same turn of the loop: nothing is connected yet
    await eventually(lambda: origin.wires and origin.wires[0].received.endswith(b"hello"))
    client.close()
    await soon(origin.wires[0].ended.wait())


async def test_a_client_that_leaves_in_mid_body_cancels_the_work(lab: Lab) -> None:
    async def script(wire: Wire) -> None:
        await wire.message()
        wire.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")

    origin = await lab.origin(script)
    router = await lab.start(document(origin))
    client = await lab.client()
    client.send(request())
    await client.until(b"half")
    client.close()
    await soon(origin.wires[0].ended.wait())
    await eventually(lambda: router.worker.in_flight == 0)
    await router.flush()
    assert router.requests == {("all", "v1", "2xx"): 1}
    assert router.counted("client_aborts", "all", "v1") == 1


async def test_a_client_that_leaves_while_sending_cancels_the_work(lab: Lab) -> None:
    origin = await lab.origin(never)
    await lab.start(document(origin))
    client = await lab.client()
    client.send(request(b"POST", b"/", None, b"content-length: 100"), b"half")
    await eventually(lambda: origin.wires and origin.wires[0].received.endswith(b"half"))
    client.close()
    await soon(origin.wires[0].ended.wait())


async def test_a_client_that_leaves_while_connecting_leaves_a_usable_connection(
    lab: Lab,
) -> None:
    origin = await lab.answering()
    router = await lab.start(document(origin))
    await lab.client()
    await eventually(lambda: router.connections)
    (connection,) = router.connections
    connection.data_received(request())
    connection.transport.abort()  # in the same turn of the loop: nothing is connected yet
    await eventually(lambda: router.worker.in_flight == 0)
    assert (await lab.ask(request())).status == 200
    assert origin.accepted == 1


# stale connections


async def _once_then(lab: Lab, act: str) -> Origin:
    """Answers the first request of its first connection; `act`s when a second one comes."""

    async def script(wire: Wire) -> None:
        await origin.next_request(wire)
        wire.send(response(b"%d" % origin.accepted))
        if origin.accepted > 1:
            return
        await origin.next_request(wire)
        if act == "reset":
            wire.reset()
        else:
            wire.writer.close()

    origin = await lab.origin(script)
    return origin


@pytest.mark.parametrize("act", ["reset", "close"])
async def test_a_get_on_a_stale_connection_is_sent_again(lab: Lab, act: str) -> None:
    origin = await _once_then(lab, act)
    router = await lab.start(document(origin))
    client = await lab.client()
    for expected in (b"1", b"2"):
        client.send(request())
        assert (await client.message()).body == expected
    await router.flush()
    assert router.counted("retries", "v1", "stale") == 1
    assert router.requests == {("all", "v1", "2xx"): 2}


@pytest.mark.parametrize("act", ["reset", "close"])
async def test_a_post_that_may_have_been_acted_on_is_not_sent_again(lab: Lab, act: str) -> None:
    origin = await _once_then(lab, act)
    await lab.start(document(origin))
    client = await lab.client()
    client.send(request(b"POST", b"/1", b"x"))
    assert (await client.message()).status == 200
    client.send(request(b"POST", b"/2", b"x"))
    got = await client.message()
    assert (got.status, got.problem()) == (502, "upstream-reset")
    assert [got.first for got in origin.requests] == [b"POST /1 HTTP/1.1", b"POST /2 HTTP/1.1"]


async def test_a_connection_closed_while_idle_is_not_used(lab: Lab) -> None:
    async def script(wire: Wire) -> None:
        await wire.message()
        wire.send(response())
        await wire.drained()
        wire.writer.close()

    router = await lab.start(document(await lab.origin(script)))
    for _ in range(3):
        assert (await lab.ask(request(b"POST", b"/", b"x"))).status == 200
        await eventually(lambda: router.pool().open == 0)


async def test_a_put_with_a_body_is_sent_again_whole(lab: Lab) -> None:
    origin = await _once_then(lab, "close")
    await lab.start(document(origin))
    client = await lab.client()
    client.send(request())
    await client.message()
    client.send(request(b"PUT", b"/", b"all of it"))
    assert (await client.message()).body == b"2"
    assert [got.body for got in origin.requests] == [b"", b"all of it", b"all of it"]


# doubtful connections


async def test_bytes_after_a_response_poison_the_connection(lab: Lab) -> None:
    origin = await lab.answering(response(b"ok") + response(b"for nobody"))
    router = await lab.start(document(origin))
    client = await lab.client()
    for _ in range(3):
        client.send(request())
        assert (await client.message()).body == b"ok"
    assert origin.accepted == 3
    await router.flush()
    assert router.counted("upstream_failures", "v1", "extra-bytes") == 3


async def test_bytes_on_an_idle_connection_poison_it(lab: Lab) -> None:
    origin = await lab.answering()
    router = await lab.start(document(origin))
    assert (await lab.ask(request())).body == b"ok"
    origin.wires[0].send(response(b"for nobody"))
    await eventually(lambda: router.pool().open == 0)
    assert (await lab.ask(request())).body == b"ok"
    await router.flush()
    assert router.counted("upstream_failures", "v1", "unsolicited") == 1


async def test_a_connection_with_unsent_request_bytes_is_not_used_again(lab: Lab) -> None:
    """The endpoint answers before it has read the request and reads no more."""

    async def script(wire: Wire) -> None:
        await wire.head()
        if len(origin.wires) == 1:
            await eventually(lambda: _is_stuffed(lab))
            wire.send(response(b"early"))
            await asyncio.Event().wait()  # reads nothing
        await wire.until(b"again")
        wire.send(response(b"second"))

    origin = await lab.origin(script, send_buffer=4096)
    await lab.start(document(origin))
    client = await lab.client()
    client.send(request(b"POST", b"/", b"x" * 6_000_000))
    got = await client.message()
    assert got.body == b"early"
    client.close()
    body = await lab.ask(request(b"POST", b"/", b"again"))
    assert body.body == b"second"


async def test_a_connection_given_back_is_not_paused_by_its_last_client(lab: Lab) -> None:
    """A whole answer in one piece, to a client that reads none of it."""
    origin = await lab.origin(never)
    router = await lab.start(document(origin))
    slow = await lab.client(receive_buffer=4096)
    slow.send(request())
    await eventually(lambda: origin.wires and origin.wires[0].received)
    (connection,) = router.connections
    accepted = connection.transport.get_extra_info("socket")
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    assert isinstance(connection.handler, Exchange)
    upstream = connection.handler.upstream
    assert upstream is not None
    upstream.data_received(response(bytes(200_000)))
    await eventually(lambda: connection.is_write_paused)
    assert upstream in router.pool().endpoints[0].idle
    fast = await lab.client()
    fast.send(request())
    await eventually(lambda: origin.wires[0].received.count(b"GET /") == 2)
    origin.wires[0].send(response())
    assert (await fast.message()).body == b"ok"
    slow.reset()


def _is_stuffed(lab: Lab) -> bool:
    """The endpoint's side takes no more: reading from the client has paused, or is at its end."""
    connections = lab.router.connections
    return any(item._is_paused or item._body is None for item in connections)


# nobody to ask


async def test_without_a_healthy_endpoint_it_is_a_503(lab: Lab) -> None:
    origin = await lab.answering()
    router = await lab.start(document(origin))
    router.send(EndpointState("v1", origin.url, "down", []))
    await router.flush()
    got = await lab.ask(request())
    assert (got.status, got.problem()) == (503, "no-healthy-endpoint")
    assert got.field("retry-after") == "1"
    router.send(EndpointState("v1", origin.url, "up", []))
    await router.flush()
    assert (await lab.ask(request())).status == 200


async def test_no_route_is_a_404_and_the_client_may_go_on(lab: Lab) -> None:
    config = document(await lab.answering())
    config["routes"][0]["match"] = {"path": "/known"}
    await lab.start(config)
    client = await lab.client()
    client.send(request(b"POST", b"/unknown", b"x"))
    got = await client.message()
    assert (got.status, got.problem()) == (404, "no-route")
    client.send(request(b"POST", b"/known", b"x"))
    assert (await client.message()).status == 200


async def test_our_own_answer_to_a_head_request_has_no_body(lab: Lab) -> None:
    config = document(await lab.answering())
    config["routes"][0]["match"] = {"path": "/known"}
    await lab.start(config)
    client = await lab.client()
    client.send(request(b"HEAD", b"/unknown"), request(b"GET", b"/known"))
    assert (await client.message(has_body=False)).status == 404
    assert (await client.message()).body == b"ok"
