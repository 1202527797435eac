"""What is relayed, byte by byte, in both directions."""

import asyncio

import pytest

from router.data import ending
from tests.data.harness import Lab, Received, Wire, document, eventually, request, response, soon

SIZES = (1, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 5 * 1024 * 1024)


def pattern(size: int) -> bytes:
    """Bytes in which every shift shows."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def chunked(body: bytes, piece: int) -> bytes:
    pieces = [body[start : start + piece] for start in range(0, len(body), piece)]
    return b"".join(b"%x\r\n%b\r\n" % (len(item), item) for item in pieces) + b"0\r\n\r\n"


# bodies


@pytest.mark.parametrize("size", SIZES)
async def test_a_body_with_a_length_arrives_byte_for_byte_both_ways(lab: Lab, size: int) -> None:
    body = pattern(size)
    origin = await lab.answering(lambda got: response(got.body[::-1]))
    await lab.start(document(origin))
    got = await lab.ask(request(b"POST", b"/echo", body))
    assert got.status == 200
    assert got.field("content-length") == str(size)
    assert got.body == body[::-1]
    assert origin.requests[0].body == body
    assert origin.requests[0].field("content-length") == str(size)


@pytest.mark.parametrize("size", SIZES)
async def test_a_chunked_body_arrives_byte_for_byte_both_ways(lab: Lab, size: int) -> None:
    body = pattern(size)

    def answer(got: Received) -> bytes:
        head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        return head + chunked(got.body[::-1], 7777)

    origin = await lab.answering(answer)
    await lab.start(document(origin))
    head = b"POST /echo HTTP/1.1\r\nhost: m\r\ntransfer-encoding: chunked\r\n\r\n"
    got = await lab.ask(head + chunked(body, 3001))
    assert got.status == 200
    assert got.field("transfer-encoding") == "chunked"
    assert got.body == body[::-1]
    assert origin.requests[0].body == body
    assert origin.requests[0].field("content-length") is None


async def test_a_request_in_single_bytes_is_the_same_request(lab: Lab) -> None:
    origin = await lab.answering()
    await lab.start(document(origin))
    client = await lab.client()
    for byte in request(b"POST", b"/slow", b"body!"):
        client.send(bytes((byte,)))
        await asyncio.sleep(0)
    assert (await client.message()).body == b"ok"
    assert origin.requests[0].first == b"POST /slow HTTP/1.1"
    assert origin.requests[0].body == b"body!"


async def test_a_response_in_single_bytes_is_the_same_response(lab: Lab) -> None:
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(b"hello", 2)

    async def script(wire: Wire) -> None:
        await wire.message()
        for byte in answer:
            wire.send(bytes((byte,)))
            await asyncio.sleep(0)

    await lab.start(document(await lab.origin(script)))
    assert (await lab.ask(request())).body == b"hello"


# framing


async def test_a_body_until_close_is_chunked_for_an_http11_client(lab: Lab) -> None:
    async def script(wire: Wire) -> None:
        await wire.message()
        wire.send(b"HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nuntil", b" close")
        await wire.drained()
        wire.writer.close()

    await lab.start(document(await lab.origin(script)))
    client = await lab.client()
    client.send(request())
    got = await client.message()
    assert got.first == b"HTTP/1.1 200 OK"
    assert got.field("transfer-encoding") == "chunked"
    assert got.body == b"until close"
    client.send(request())  # the client's own connection is not closed by that
    assert (await client.message()).body == b"until close"


@pytest.mark.parametrize(
    "answer",
    [
        response(b"hello"),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(b"hello", 2),
    ],
    ids=["length", "chunked"],
)
async def test_an_http10_client_gets_a_plain_body_and_a_close(lab: Lab, answer: bytes) -> None:
    origin = await lab.answering(answer)
    await lab.start(document(origin))
    client = await lab.client()
    client.send(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
    got = await client.head()
    assert got.field("transfer-encoding") is None
    assert got.field("connection") == "close"
    assert await client.end() == b"hello"
    assert origin.requests[0].first == b"GET / HTTP/1.1"


@pytest.mark.parametrize(
    ("method", "answer", "length"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", "1000"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", None),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 1000\r\n\r\n", "1000"),
    ],
    ids=["head", "204", "304"],
)
async def test_answers_without_a_body_leave_both_connections_usable(
    lab: Lab, method: bytes, answer: bytes, length: str | None
) -> None:
    origin = await lab.answering(answer)
    await lab.start(document(origin))
    client = await lab.client()
    for _ in range(2):
        client.send(request(method))
        got = await client.message(has_body=False)
        assert got.first == answer.partition(b"\r\n")[0]
        assert got.field("content-length") == length
        assert got.field("transfer-encoding") is None
    assert client.unread == b""
    assert origin.accepted == 1


async def test_interim_answers_are_relayed_before_the_final_one(lab: Lab) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n"
    origin = await lab.answering(b"HTTP/1.1 100 Continue\r\n\r\n" + hints + response())
    await lab.start(document(origin))
    client = await lab.client()
    client.send(request())
    assert (await client.head()).raw == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert (await client.head()).raw == hints
    assert (await client.message()).body == b"ok"
    assert await _http10(lab) == b"ok"


async def _http10(lab: Lab) -> bytes:
    """The body an HTTP/1.0 client gets, whose first head must be the final one."""
    client = await lab.client()
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    assert (await client.head()).status == 200
    return await client.end()


async def test_a_body_announced_with_expect_is_sent_after_the_endpoint_agreed(lab: Lab) -> None:
    async def script(wire: Wire) -> None:
        head = await wire.head()
        assert head.field("expect") == "100-continue"
        assert wire.unread == b""
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await wire.exactly(5) == b"hello"
        wire.send(response(b"got it"))

    await lab.start(document(await lab.origin(script)))
    client = await lab.client()
    client.send(request(b"POST", b"/", None, b"expect: 100-continue", b"content-length: 5"))
    assert (await client.head()).status == 100
    client.send(b"hello")
    assert (await client.message()).body == b"got it"


# the order of things


async def test_each_piece_of_a_stream_is_seen_before_the_next_is_sent(lab: Lab) -> None:
    seen = asyncio.Semaphore(0)

    async def script(wire: Wire) -> None:
        await wire.message()
        wire.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
        wire.send(b"transfer-encoding: chunked\r\n\r\n")
        for number in range(5):
            event = b"data: %d\n\n" % number
            wire.send(b"%x\r\n%b\r\n" % (len(event), event))
            await seen.acquire()
        wire.send(b"0\r\n\r\n")

    await lab.start(document(await lab.origin(script)))
    client = await lab.client()
    client.send(request())
    assert (await client.head()).status == 200
    for number in range(5):
        assert await client.chunk() == b"data: %d\n\n" % number
        seen.release()
    assert await client.chunk() == b""


async def test_an_upload_arrives_piece_by_piece(lab: Lab) -> None:
    pieces: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(wire: Wire) -> None:
        await wire.head()
        for _ in range(3):
            pieces.put_nowait(await wire.exactly(4))
        wire.send(response())

    await lab.start(document(await lab.origin(script)))
    client = await lab.client()
    client.send(request(b"POST", b"/", None, b"content-length: 12"))
    for piece in (b"aaaa", b"bbbb", b"cccc"):
        client.send(piece)
        assert await asyncio.wait_for(pieces.get(), 5) == piece
    assert (await client.message()).status == 200


async def test_an_early_answer_is_relayed_and_the_connections_are_given_up(lab: Lab) -> None:
    async def script(wire: Wire) -> None:
        await wire.head()
        wire.send(response(b"too big", status=b"413 Content Too Large"))

    origin = await lab.origin(script)
    await lab.start(document(origin))
    client = await lab.client()
    client.send(request(b"POST", b"/", None, b"content-length: 1000000"), b"x" * 1000)
    got = await client.message()
    assert (got.status, got.body) == (413, b"too big")
    assert got.field("connection") == "close"
    assert await client.end() == b""
    assert await soon(origin.wires[0].ended.wait()) is True


async def test_after_an_early_answer_the_rest_of_the_body_is_taken_and_dropped(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the client might never come to read the answer."""
    monkeypatch.setattr(ending, "LINGER_S", 60.0)
    go_on = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.head()
        await go_on.wait()
        wire.send(response(b"too big", status=b"413 Content Too Large"))

    router = await lab.start(document(await lab.origin(script, send_buffer=4096)))
    client = await lab.client()
    client.send(request(b"POST", b"/", None, b"content-length: 90000000"), bytes(20_000_000))
    await eventually(lambda: any(item._is_paused for item in router.connections))
    go_on.set()
    assert (await client.message()).body == b"too big"
    await client.drained()


async def test_a_body_goes_on_after_the_answer_began(lab: Lab) -> None:
    async def script(wire: Wire) -> None:
        await wire.head()
        wire.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(3):
            wire.send(b"4\r\n", await wire.exactly(4), b"\r\n")
        wire.send(b"0\r\n\r\n")

    await lab.start(document(await lab.origin(script)))
    client = await lab.client()
    client.send(request(b"POST", b"/", None, b"content-length: 12"))
    assert (await client.head()).field("connection") == "close"
    for piece in (b"aaaa", b"bbbb", b"cccc"):
        client.send(piece)
        assert await client.chunk() == piece
    assert await client.chunk() == b""
    assert await client.end() == b""


# heads


async def test_the_endpoint_gets_exactly_this_head(lab: Lab) -> None:
    origin = await lab.answering()
    await lab.start(document(origin))
    head = (
        b"POST /v1/x?q=1 HTTP/1.1\r\nHost: Model.Test:8080\r\nX-Request-ID: mine-1\r\n"
        b"traceparent: 00-aa-bb-01\r\nX-Forwarded-For: 6.6.6.6\r\nX-Router-Shadow: true\r\n"
        b"Connection: keep-alive, x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
        b"Content-Length: 2\r\nX-Kept:  as it  came \r\n\r\nhi"
    )
    await lab.ask(head)
    got = origin.requests[0]
    assert (got.first, got.body) == (b"POST /v1/x?q=1 HTTP/1.1", b"hi")
    assert sorted(got.lines) == [
        b"Host: Model.Test:8080",
        b"X-Kept:  as it  came ",
        b"content-length: 2",
        b"traceparent: 00-aa-bb-01",
        b"via: 1.1 pointsman",
        b"x-forwarded-for: 127.0.0.1",
        b"x-forwarded-host: Model.Test:8080",
        b"x-forwarded-proto: http",
        b"x-request-id: mine-1",
    ]


async def test_the_client_gets_exactly_this_head(lab: Lab) -> None:
    lines = (
        b"Server: s",
        b"X-Router-Variant: forged",
        b"Keep-Alive: timeout=9",
        b"Set-Cookie: a=b",
        b"Date: Thu, 01 Jan 1970 00:00:00 GMT",
    )
    await lab.start(document(await lab.answering(response(b"ok", *lines))))
    got = await lab.ask(request(b"GET", b"/", None, b"x-request-id: mine-1"))
    assert (got.first, got.body) == (b"HTTP/1.1 200 OK", b"ok")
    assert sorted(got.lines) == [
        b"Date: Thu, 01 Jan 1970 00:00:00 GMT",
        b"Server: s",
        b"Set-Cookie: a=b",
        b"content-length: 2",
        b"via: 1.1 pointsman",
        b"x-request-id: mine-1",
        b"x-router-route: all",
        b"x-router-variant: v1",
    ]


async def test_the_routers_own_headers_can_be_turned_off(lab: Lab) -> None:
    config = document(await lab.answering())
    config["routes"][0]["headers"] = {"variant": False, "route": False}
    await lab.start(config)
    got = await lab.ask(request())
    assert got.field("x-router-variant") is None
    assert got.field("x-router-route") is None
    assert got.field("via") == "1.1 pointsman"


async def test_every_request_gets_an_id_of_its_own(lab: Lab) -> None:
    origin = await lab.answering()
    await lab.start(document(origin))
    ids = [(await lab.ask(request())).field("x-request-id") for _ in range(3)]
    assert len(set(ids)) == 3
    assert ids == [got.field("x-request-id") for got in origin.requests]


# counting


async def test_every_request_is_counted_once(lab: Lab) -> None:
    def answer(got: Received) -> bytes:
        return response(status=got.first.split(b" ")[1][1:] + b" X")

    origin = await lab.answering(answer)
    config = document(origin)
    config["routes"][0]["match"] = {"path_regex": "/[2-5].*"}
    router = await lab.start(config)
    client = await lab.client()
    sent = [b"/200", b"/404", b"/503", b"/nowhere", b"/301"] * 4
    for target in sent:
        client.send(request(b"GET", target))
        await client.message()
    await router.flush()
    assert router.requests == {
        ("all", "v1", "2xx"): 4,
        ("all", "v1", "3xx"): 4,
        ("all", "v1", "4xx"): 4,
        ("all", "v1", "5xx"): 4,
        ("", "", "4xx"): 4,
    }
    assert router.counted("decisions", "all", "v1", "single") == 16
    assert router.counted("refused", "no-route") == 4
    assert router.counted("downstream_connections_accepted") == 1
    assert router.counted("upstream_connections_opened", "v1") == 1
    assert router.gauges.items() >= {
        ("pointsman_downstream_connections", 1),
        ("pointsman_requests_in_flight", 0),
        ("pointsman_upstream_connections", 1),
        ("pointsman_shadow_in_flight", 0),
    }


async def test_counts_agree_with_what_was_sent_when_many_clients_behave_differently(
    lab: Lab,
) -> None:
    def answer(got: Received) -> bytes:
        return response(got.body or b"none")

    origin = await lab.answering(answer)
    router = await lab.start(document(origin))

    async def many(number: int) -> None:
        client = await lab.client()
        body = pattern(number * 1000)
        for _ in range(10):
            client.send(request(b"POST", b"/", body))
            assert (await client.message()).body == (body or b"none")
        client.send(b"nonsense\r\n\r\n")
        assert (await client.message()).status == 400

    await asyncio.gather(*map(many, range(20)))
    await router.flush()
    assert router.requests == {("all", "v1", "2xx"): 200, ("", "", "4xx"): 20}
    assert len(origin.requests) == 200
