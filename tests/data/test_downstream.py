"""Client connections: limits, pipelining, keep-alive, back-pressure, and their end."""

import asyncio
from typing import Any

import pytest

from router.data import ending
from router.data.downstream import Downstream
from router.messages import Drain
from tests.data.harness import Lab, Wire, a_bug, document, eventually, request, response, soon


def limited(config: dict[str, Any], **limits: Any) -> dict[str, Any]:
    return {**config, "downstream": limits}


# a bug of ours


async def test_a_bug_ends_one_request_with_a_500_and_is_reported(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = await lab.answering()
    router = await lab.start(document(origin))
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    client, neighbour = await lab.client(), await lab.client()
    with monkeypatch.context() as broken:
        broken.setattr(router.worker.parser, "parse", lambda *_: 1 / 0)
        client.send(request(b"GET", b"/"))
        got = await client.message()
    assert (got.status, got.problem()) == (500, "internal")
    assert await client.end() == b""
    assert [type(context["exception"]) for context in reported] == [ZeroDivisionError]
    neighbour.send(request(b"GET", b"/"))
    assert (await neighbour.message()).status == 200


@pytest.mark.parametrize(
    ("collaborator", "method"),
    [("clients", "peer_of"), ("clients", "enter"), ("acceptor", "look"), ("wheel", "arm")],
)
async def test_a_bug_while_a_connection_is_taken_closes_it_and_is_counted(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, collaborator: str, method: str
) -> None:
    router = await lab.start(document(await lab.answering()))
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    neighbour = await lab.client()
    await eventually(lambda: router.connections)
    with monkeypatch.context() as broken:
        broken.setattr(getattr(router.worker, collaborator), method, a_bug)
        client = await lab.client()
        client.send(request())
        assert await client.is_ended()
    assert client.received == b""
    await eventually(lambda: len(router.connections) == 1)
    assert [type(context["exception"]) for context in reported] == [RuntimeError]
    await router.flush()
    assert router.counted("refused", "internal") == 1
    neighbour.send(request())
    assert (await neighbour.message()).status == 200
    assert (await lab.ask(request())).status == 200


# what is refused


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"nonsense\r\n\r\n", 400, "malformed-request"),
        (b"GET / HTTP/1.1\nhost: m\n\n", 400, "malformed-request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "malformed-request"),
        (b"GET / HTTP/2.0\r\nhost: m\r\n\r\n", 505, "version-unsupported"),
        (b"CONNECT m:80 HTTP/1.1\r\nhost: m\r\n\r\n", 405, "method-refused"),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nhost: m\r\n\r\n", 414, "target-too-long"),
        (request(b"GET", b"/", None, b"x: " + b"y" * 16_400), 431, "head-too-large"),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 16_400, 431, "head-too-large"),
        (request(b"GET", b"/", None, *[b"x%d: y" % n for n in range(20)]), 431, "head-too-large"),
        (request(b"POST", b"/", None, b"content-length: 1001"), 413, "body-too-large"),
        (request(b"POST", b"/", None, b"transfer-encoding: gzip"), 501, "coding-unknown"),
        (
            request(b"POST", b"/", None, b"transfer-encoding: chunked") + b"3e9\r\n" + b"x" * 1001,
            413,
            "body-too-large",
        ),
        (
            request(b"POST", b"/", None, b"transfer-encoding: chunked") + b"no\r\n",
            400,
            "malformed-request",
        ),
    ],
)
async def test_a_refused_request_gets_a_problem_and_a_clean_close(
    lab: Lab, data: bytes, status: int, reason: str
) -> None:
    origin = await lab.answering()
    config = document(origin)
    router = await lab.start(limited(config, head_bytes="16KiB", headers=10, body_bytes=1000))
    client = await lab.client()
    client.send(data)
    got = await client.message()
    assert (got.status, got.problem()) == (status, reason)
    assert got.field("connection") == "close"
    assert await client.end() == b""
    await router.flush()
    assert router.counted("refused", reason) == 1
    assert router.requests[("", "", f"{status // 100}xx")] + sum(router.requests.values()) > 0
    assert sum(router.requests.values()) == 1
    assert origin.requests == []


async def test_a_body_that_grows_too_large_is_refused_and_its_endpoint_let_go(lab: Lab) -> None:
    origin = await lab.answering()
    await lab.start(limited(document(origin), body_bytes=1000))
    client = await lab.client()
    client.send(request(b"POST", b"/", None, b"transfer-encoding: chunked"))
    client.send(b"3e8\r\n", b"x" * 1000, b"\r\n")
    await eventually(lambda: origin.wires and len(origin.wires[0].received) > 1000)
    client.send(b"1\r\nx\r\n")
    assert (await client.message()).problem() == "body-too-large"
    await soon(origin.wires[0].ended.wait())


async def test_a_client_still_sending_gets_its_refusal_whole(lab: Lab) -> None:
    """A close with unread bytes would reset the connection and take the answer away."""
    await lab.start(limited(document(await lab.answering()), body_bytes=1000))
    client = await lab.client()
    client.send(request(b"POST", b"/", b"x" * 3_000_000))
    assert (await client.message()).problem() == "body-too-large"
    assert await client.end() == b""


async def test_a_head_that_does_not_end_in_time_is_a_408(lab: Lab) -> None:
    router = await lab.start(limited(document(await lab.answering()), head_timeout="50ms"))
    client = await lab.client()
    client.send(b"GET / HT")
    got = await client.message()
    assert (got.status, got.problem()) == (408, "slow-client")
    assert await client.end() == b""
    await router.flush()
    assert router.counted("refused", "slow-client") == 1


@pytest.mark.parametrize("framing", [b"content-length: 10", b"transfer-encoding: chunked"])
async def test_a_body_that_stops_coming_is_a_408(lab: Lab, framing: bytes) -> None:
    origin = await lab.answering()
    router = await lab.start(limited(document(origin), body_timeout="50ms"))
    client = await lab.client()
    client.send(request(b"POST", b"/", None, framing), b"2\r\nhi")
    got = await client.message()
    assert (got.status, got.problem()) == (408, "slow-client")
    assert await client.end() == b""
    await soon(origin.wires[0].ended.wait())
    await router.flush()
    assert router.requests == {("all", "v1", "4xx"): 1}
    assert router.counted("upstream_failures", "v1", "reset") == 0


async def test_a_connection_that_never_speaks_is_closed(lab: Lab) -> None:
    await lab.start(limited(document(await lab.answering()), head_timeout="50ms"))
    client = await lab.client()
    assert await client.is_ended()
    assert client.received == b""


async def test_an_idle_connection_is_closed_after_its_time(lab: Lab) -> None:
    await lab.start(limited(document(await lab.answering()), idle_timeout="50ms"))
    client = await lab.client()
    client.send(request())
    assert (await client.message()).status == 200
    assert await client.is_ended()


# many requests on one connection


async def test_connections_are_kept_and_used_again_on_both_sides(lab: Lab) -> None:
    origin = await lab.answering()
    router = await lab.start(document(origin))
    client = await lab.client()
    for _ in range(20):
        client.send(request(b"POST", b"/", b"x"))
        assert (await client.message()).status == 200
    assert origin.accepted == 1
    await router.flush()
    assert router.counted("downstream_connections_accepted") == 1


async def test_pipelined_requests_are_answered_in_order(lab: Lab) -> None:
    origin = await lab.answering(lambda got: response(got.first.split(b" ")[1] + got.body))
    await lab.start(document(origin))
    client = await lab.client()
    client.send(
        b"\r\n",
        *(request(b"POST", b"/%d" % number, b"b%d" % number) for number in range(50)),
    )
    for number in range(50):
        assert (await client.message()).body == b"/%db%d" % (number, number)


async def test_pipelined_requests_of_which_some_are_refused_are_answered_in_order(
    lab: Lab,
) -> None:
    config = document(await lab.answering())
    config["routes"][0]["match"] = {"path": "/known"}
    await lab.start(config)
    client = await lab.client()
    client.send(*(request(b"GET", b"/known") + request(b"GET", b"/unknown") for _ in range(20)))
    assert [(await client.message()).status for _ in range(40)] == [200, 404] * 20


async def test_a_pipeline_longer_than_the_buffer_is_read_to_its_end(lab: Lab) -> None:
    await lab.start(document(await lab.answering()))
    client = await lab.client()
    one = request(b"POST", b"/", b"x" * 1000)
    client.send(one * 500)
    for _ in range(500):
        assert (await client.message()).status == 200


async def test_bytes_that_arrive_between_an_answer_and_the_next_request_are_read_in_order(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was kept during an exchange has not been looked at when more follows it."""
    origin = await lab.answering(lambda got: response(got.first.split(b" ")[1] + got.body))
    router = await lab.start(document(origin))
    end_exchange = Downstream.on_exchange_end
    late: list[bytes] = []

    def ended(self: Downstream, keep_alive: bool, is_request_complete: bool) -> None:
        end_exchange(self, keep_alive, is_request_complete)
        if late:
            self.data_received(late.pop())

    monkeypatch.setattr(Downstream, "on_exchange_end", ended)
    first, rest = request(target=b"/1"), request(b"POST", b"/2", b"two") + request(target=b"/3")
    for cut in range(1, len(rest)):
        client = await lab.client()
        late.append(rest[cut:])
        client.send(first + rest[:cut])
        assert [(await client.message()).body for _ in range(3)] == [b"/1", b"/2two", b"/3"]
        client.close()
    await eventually(lambda: not router.connections)


async def test_a_client_that_asks_for_a_close_gets_it_after_the_answer(lab: Lab) -> None:
    await lab.start(document(await lab.answering()))
    client = await lab.client()
    client.send(request(b"GET", b"/", None, b"connection: close"), request())
    got = await client.message()
    assert got.field("connection") == "close"
    assert await client.end() == b""


# back-pressure


async def test_a_client_that_does_not_read_stops_the_endpoint(lab: Lab) -> None:
    sent = 0

    async def script(wire: Wire) -> None:
        nonlocal sent
        await wire.message()
        wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        while sent < total:
            wire.send(bytes(100_000))
            sent += 100_000
            await wire.drained()

    total = 100_000_000
    router = await lab.start(document(await lab.origin(script, send_buffer=16 * 1024)))
    client = await lab.client(receive_buffer=128 * 1024)
    client.send(request())
    await client.head()
    await eventually(_stands_still(lambda: sent))
    assert sent < total / 4
    (connection,) = router.connections
    assert connection.transport.get_write_buffer_size() < 1_000_000
    stopped_at = sent
    while sent == stopped_at:  # and goes on when the client reads
        await client.exactly(100_000)
    client.reset()


async def test_an_endpoint_that_does_not_read_stops_the_client(lab: Lab) -> None:
    go_on = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.head()
        await go_on.wait()
        assert await wire.exactly(total) == bytes(total)
        wire.send(response())

    total = 50_000_000
    sent = 0
    await lab.start(document(await lab.origin(script, send_buffer=16 * 1024)))
    client = await lab.client()

    async def send() -> None:
        nonlocal sent
        client.send(request(b"POST", b"/", None, b"content-length: %d" % total))
        while sent < total:
            client.send(bytes(100_000))
            sent += 100_000
            await client.drained()

    sending = asyncio.create_task(send())
    await eventually(_stands_still(lambda: sent))
    assert sent < total / 2
    go_on.set()
    assert (await client.message()).status == 200
    await sending


async def test_a_client_that_never_reads_is_given_up_and_the_endpoint_let_go(lab: Lab) -> None:
    origin = await lab.answering(response(bytes(30_000_000)))
    router = await lab.start(limited(document(origin), body_timeout="50ms"))
    client = await lab.client(receive_buffer=16 * 1024)
    client.send(request())
    await eventually(lambda: router.worker.in_flight == 1)
    await eventually(lambda: router.worker.in_flight == 0)
    await soon(origin.wires[0].ended.wait())
    await router.flush()
    assert router.counted("client_aborts", "all", "v1") == 1


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_client_that_reads_slowly_gets_everything(lab: Lab, version: bytes) -> None:
    """Slower than the time-out for what the kernel holds, but never still for that long."""
    total = 8_000_000
    config = document(await lab.answering(response(bytes(total))))
    await lab.start(limited(config, body_timeout="150ms", idle_timeout="150ms"))
    client = await lab.client(receive_buffer=16 * 1024)
    client.send(b"GET / HTTP/%b\r\nhost: m\r\n\r\n" % version)
    await client.head()
    slow = 20
    for _ in range(slow):
        await client.exactly(20_000)
        await asyncio.sleep(0.02)  # the pace of the client
    await client.exactly(total - slow * 20_000)


async def test_a_finished_answer_that_nobody_reads_does_not_keep_its_connection(lab: Lab) -> None:
    origin = await lab.answering(response(bytes(3_000_000)))
    router = await lab.start(limited(document(origin), body_timeout="50ms"))
    client = await lab.client(receive_buffer=16 * 1024)
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    await eventually(lambda: origin.requests)
    await eventually(lambda: not router.connections)


async def test_a_pipelining_client_that_does_not_read_is_not_served_on(lab: Lab) -> None:
    origin = await lab.answering(response(bytes(200_000)))
    await lab.start(document(origin))
    client = await lab.client(receive_buffer=16 * 1024)
    client.send(request() * 1000)
    await eventually(_stands_still(lambda: len(origin.requests)))
    assert len(origin.requests) < 100
    client.reset()


# the end of a connection


async def test_a_half_closed_client_is_gone(lab: Lab) -> None:
    async def script(wire: Wire) -> None:
        await wire.message()

    origin = await lab.origin(script)
    await lab.start(document(origin))
    client = await lab.client()
    client.send(request())
    await eventually(lambda: origin.wires and origin.wires[0].received)
    client.half_close()
    await soon(origin.wires[0].ended.wait())
    assert await client.end() == b""


async def test_lingering_ends_by_itself(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "LINGER_S", 0.05)
    router = await lab.start(document(await lab.answering()))
    client = await lab.client()
    client.send(b"nonsense\r\n\r\n")
    await eventually(lambda: router.connections)
    await eventually(lambda: not router.connections)
    assert client.received == b""  # this client never even looked


async def test_while_draining_an_answer_says_that_the_connection_closes(lab: Lab) -> None:
    answer = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.message()
        await answer.wait()
        wire.send(response())

    router = await lab.start(document(await lab.origin(script)))
    client = await lab.client()
    client.send(request())
    await eventually(lambda: router.worker.in_flight == 1)
    router.send(Drain(0.0, 5.0))
    await router.flush()
    answer.set()
    got = await client.message()
    assert got.field("connection") == "close"
    assert await client.end() == b""


def _stands_still(value: Any) -> Any:
    """A condition that holds when `value()` was the same (and not 0) for 50 polls in a row."""
    seen: list[Any] = []

    def condition() -> bool:
        seen.append(value())
        return len(seen) > 50 and seen[-1] != 0 and len(set(seen[-50:])) == 1

    return condition
