"""The TLS transport between real sockets: what arrives, what an end means, what is held."""

import asyncio
import gc
import os
import socket
import ssl
import warnings

import pytest

from router.data.endpoint import EndpointPool
from router.data.tls import RECORD_MAX_BYTES, STRIDE_BYTES, TlsTransport
from router.data.tunnel import Tunnel
from router.data.upstream import Upstream
from tests.certificates import server
from tests.data.harness import OK, Wire, document, eventually, request, response, soon
from tests.data.tls import Cut, TlsLab, TlsOrigin, TlsWire

MIB = 1024 * 1024
ASK = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


async def test_requests_follow_each_other_on_one_connection(tls_lab: TlsLab) -> None:
    origin = await tls_lab.lab.answering()
    await tls_lab.start(tls_lab.listening(document(origin)))
    client = await tls_lab.client()
    for _ in range(3):
        client.send(request())
        assert (await client.message()).body == b"ok"
    assert [one.field("x-forwarded-proto") for one in origin.requests] == ["https"] * 3
    assert client.ssl.selected_alpn_protocol() is None


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_bytes_may_come_one_by_one(tls_lab: TlsLab, version: ssl.TLSVersion) -> None:
    origin = await tls_lab.lab.answering()
    await tls_lab.start(tls_lab.listening(document(origin)))
    context = tls_lab.authority.client()
    context.maximum_version = version
    client = await tls_lab.connect(context)
    sock = client.writer.get_extra_info("socket")
    whole, write = bytearray(), client.writer.write

    def one_by_one(data: bytes) -> None:
        whole.extend(data)
        for at in range(len(data)):
            os.write(sock.fileno(), data[at : at + 1])

    client.writer.write = one_by_one  # type: ignore[method-assign]  # beneath the TLS of the test
    await client.shake()
    client.send(request())
    assert (await client.message()).status == 200
    client.writer.write = write  # type: ignore[method-assign]
    assert len(whole) > 300


async def test_a_request_that_comes_with_the_last_flight_is_answered(tls_lab: TlsLab) -> None:
    origin = await tls_lab.lab.answering()
    await tls_lab.start(tls_lab.listening(document(origin)))
    client = await tls_lab.connect()
    write, held = client.writer.write, bytearray()
    with pytest.raises(ssl.SSLWantReadError):
        client.ssl.do_handshake()
    client._flush()
    client.writer.write = held.extend  # type: ignore[method-assign,assignment]  # sent below
    await client.shake()
    write(bytes(held) + client.encrypt(request()))
    assert (await client.message()).status == 200
    client.writer.write = write  # type: ignore[method-assign]


@pytest.mark.parametrize("size", [RECORD_MAX_BYTES, STRIDE_BYTES, STRIDE_BYTES + 1, 5 * MIB])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_bodies_of_any_size_pass_unchanged_both_ways(
    tls_lab: TlsLab, size: int, framing: str
) -> None:
    body = os.urandom(size)

    async def script(wire: Wire) -> None:
        while True:
            got = await origin.next_request(wire)
            if framing == "length":
                wire.send(response(got.body))
            else:
                wire.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                wire.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(got.body), got.body))

    origin = await tls_lab.origin(script)
    await tls_lab.start(tls_lab.listening(tls_lab.document(origin)))
    client = await tls_lab.client()
    for _ in range(2):
        client.send(request(b"PUT", b"/", body))
        assert (await client.message()).body == body
    assert origin.accepted == 1


# an end, and what is none


@pytest.mark.parametrize(
    "framing", [b"content-length: 100", b"transfer-encoding: chunked", b"x: y"]
)
@pytest.mark.parametrize("is_reset", [True, False])
async def test_an_answer_cut_short_is_seen_to_be(
    tls_lab: TlsLab, framing: bytes, is_reset: bool
) -> None:
    async def script(wire: Wire) -> None:
        await wire.message()
        wire.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing, b"64\r\nhalf")
        await wire.drained()
        wire.reset() if is_reset else wire.writer.close()

    origin = await tls_lab.origin(script)
    router = await tls_lab.start(tls_lab.listening(tls_lab.document(origin)))
    client = await tls_lab.client()
    client.send(request())
    assert (await client.head()).status == 200
    assert await client.is_broken()
    await router.flush()
    assert router.counted("truncated", "all", "v1") == 1


async def test_an_answer_that_the_farewell_ends_is_whole(tls_lab: TlsLab) -> None:
    async def script(wire: Wire) -> None:
        assert isinstance(wire, TlsWire)
        await wire.message()
        wire.send(b"HTTP/1.1 200 OK\r\n\r\nwhole")
        wire.farewell()

    router = await tls_lab.start(tls_lab.document(await tls_lab.origin(script)))
    assert (await tls_lab.lab.ask(request())).body == b"whole"
    await router.flush()
    assert router.counted("truncated", "all", "v1") == 0


async def test_a_refused_client_can_read_the_answer_to_its_end(tls_lab: TlsLab) -> None:
    await tls_lab.start(tls_lab.listening(document(await tls_lab.lab.answering())))
    client = await tls_lab.client()
    client.send(b"nonsense\r\n\r\n")
    assert (await client.message()).status == 400
    assert await client.end() == b""
    client.send(b"more that nobody reads" * 1000)
    client.farewell()
    assert (await soon(client.reader.read())) == b""


async def test_a_client_s_farewell_cancels_its_request(tls_lab: TlsLab) -> None:
    async def script(wire: Wire) -> None:
        await wire.message()
        await wire.ended.wait()

    origin = await tls_lab.lab.origin(script)
    router = await tls_lab.start(tls_lab.listening(document(origin)))
    client = await tls_lab.client()
    client.send(request())
    await eventually(lambda: router.worker.in_flight)
    client.farewell()
    await eventually(lambda: not router.worker.in_flight)
    assert await client.end() == b""
    await router.flush()
    assert router.counted("client_aborts", "all", "v1") == 1


@pytest.mark.parametrize("is_reset", [True, False])
async def test_a_client_that_leaves_without_one_is_gone_too(
    tls_lab: TlsLab, is_reset: bool
) -> None:
    origin = await tls_lab.lab.origin(_hang)
    router = await tls_lab.start(tls_lab.listening(document(origin)))
    client = await tls_lab.client()
    client.send(request())
    await eventually(lambda: router.worker.in_flight)
    client.reset() if is_reset else client.writer.close()
    await eventually(lambda: not (router.worker.in_flight or router.connections))


async def _hang(wire: Wire) -> None:
    await wire.message()


async def test_bytes_that_were_changed_on_the_way_end_the_connection(tls_lab: TlsLab) -> None:
    origin = await tls_lab.lab.answering()
    router = await tls_lab.start(tls_lab.listening(document(origin)))
    client = await tls_lab.client()
    client.send(request())
    assert (await client.message()).status == 200
    sealed = bytearray(client.encrypt(request()))
    sealed[-1] ^= 1
    client.writer.write(bytes(sealed))
    with pytest.raises(ssl.SSLError, match=r"(?i)bad record mac"):
        await soon(client.fill())
    await eventually(lambda: not router.connections)
    assert len(origin.requests) == 1


async def test_bytes_after_the_farewell_are_nobody_s(tls_lab: TlsLab) -> None:
    origin = await tls_lab.lab.answering()
    router = await tls_lab.start(tls_lab.listening(document(origin)))
    client = await tls_lab.client()
    client.farewell()
    client.writer.write(b"\x17\x03\x03" + b"x" * 4096)
    assert await client.is_ended()
    await eventually(lambda: not router.connections)
    assert origin.requests == []


# half-close


async def _tunnel(tls_lab: TlsLab, buffer: int | None = None) -> tuple[TlsWire, TlsWire]:
    """The client's and the endpoint's end."""
    ends: list[TlsWire] = []
    is_over = asyncio.Event()

    async def script(wire: Wire) -> None:
        assert isinstance(wire, TlsWire)
        await wire.head()
        wire.send(SWITCH)
        ends.append(wire)
        await is_over.wait()

    origin = await tls_lab.origin(script, send_buffer=buffer)
    await tls_lab.start(tls_lab.listening(tls_lab.document(origin)))
    client = await tls_lab.client(receive_buffer=buffer)
    client.send(ASK)
    assert (await client.head()).status == 101
    return client, ends[0]


@pytest.mark.parametrize("is_from_client", [True, False], ids=["client", "endpoint"])
async def test_a_side_of_a_tunnel_that_ends_still_gets_what_the_other_says(
    tls_lab: TlsLab, is_from_client: bool
) -> None:
    ends = await _tunnel(tls_lab)
    first, other = ends if is_from_client else reversed(ends)
    long = os.urandom(3 * MIB)
    other.send(long)  # on its way while the end is told
    first.send(b"last words")
    first.farewell()
    assert await other.exactly(10) == b"last words"
    assert await other.end() == b""
    other.send(b"and mine")
    other.farewell()
    assert await first.exactly(len(long) + 8) == long + b"and mine"
    assert await first.end() == b""
    await eventually(lambda: not tls_lab.router.connections)


@pytest.mark.parametrize("is_from_client", [True, False], ids=["client", "endpoint"])
async def test_a_side_of_a_tunnel_that_breaks_off_breaks_the_other(
    tls_lab: TlsLab, is_from_client: bool
) -> None:
    ends = await _tunnel(tls_lab)
    first, other = ends if is_from_client else reversed(ends)
    first.writer.close()
    assert await other.is_broken()


# what is held


@pytest.mark.parametrize("is_download", [True, False])
async def test_whoever_does_not_read_stops_the_other(tls_lab: TlsLab, is_download: bool) -> None:
    client, endpoint = await _tunnel(tls_lab, buffer=16 * 1024)
    sender, receiver = (endpoint, client) if is_download else (client, endpoint)
    piece, sent, stood_still = os.urandom(64 * 1024), 0, 0
    while stood_still < 50:
        assert sent < 64 * MIB, "nobody stops the sender"
        if sender.writer.transport.get_write_buffer_size():
            stood_still += 1
        else:
            stood_still = 0
            sender.send(piece)
            sent += len(piece)
        await asyncio.sleep(0.002)
    (downstream,) = tls_lab.router.connections
    assert isinstance(downstream.handler, Tunnel)
    for transport in (downstream.transport, downstream.handler._upstream.transport):
        assert isinstance(transport, TlsTransport)
        assert transport.get_write_buffer_size() <= MIB
        assert transport._incoming.pending <= RECORD_MAX_BYTES + 512
        assert transport._outgoing.pending == 0
    assert await receiver.exactly(sent) == piece * (sent // len(piece))


async def test_openssl_gets_no_more_at_a_time_than_its_buffers_may_keep(tls_lab: TlsLab) -> None:
    body = os.urandom(2 * MIB)
    origin = await tls_lab.lab.answering(response(body))
    router = await tls_lab.start(tls_lab.listening(document(origin)))
    client = await tls_lab.client()
    client.send(request())
    assert (await client.message()).body == body
    (downstream,) = router.connections
    transport = downstream.transport
    assert isinstance(transport, TlsTransport)
    given: list[int] = []

    def encrypt(data: bytes) -> int:
        given.append(len(data))
        return transport._ssl.write(data)

    transport._encrypt = encrypt
    client.send(request())
    assert (await client.message()).body == body
    assert max(given) <= STRIDE_BYTES
    assert sum(given) > len(body)


# idle connections to endpoints


async def _idle(tls_lab: TlsLab) -> tuple[TlsOrigin, TlsWire, EndpointPool, Upstream]:
    """A connection in the pool that has carried no request; its server holds tickets back."""

    async def script(wire: Wire) -> None:
        assert isinstance(wire, TlsWire)
        wire.holds_tickets = True
        await wire.shake()
        while True:
            await origin.next_request(wire)
            wire.send(OK)

    origin = await tls_lab.origin(script)
    router = await tls_lab.start(tls_lab.document(origin))
    (endpoint,) = router.pool().endpoints
    endpoint.open += 1
    endpoint.in_flight += 1
    upstream = await endpoint.connect()
    upstream.give_back()
    await eventually(lambda: origin.wires and origin.wires[0].is_shaken)  # type: ignore[attr-defined]
    (wire,) = origin.wires
    assert isinstance(wire, TlsWire)
    return origin, wire, endpoint, upstream


def _send_now(wire: TlsWire, data: bytes) -> None:
    """Past the loop, so that what is sent is there before the loop looks."""
    os.write(wire.writer.get_extra_info("socket").fileno(), data)


async def test_tickets_that_come_late_are_no_end(tls_lab: TlsLab) -> None:
    origin, wire, _, upstream = await _idle(tls_lab)
    tickets = wire.outgoing.read()
    assert len(tickets) > 100
    _send_now(wire, tickets[:50])
    assert upstream.is_usable(upstream.idle_since_s + 1)
    _send_now(wire, tickets[50:])
    assert upstream.is_usable(upstream.idle_since_s + 1)
    assert upstream.is_usable(upstream.idle_since_s + 1)
    assert (await tls_lab.lab.ask(request())).status == 200
    assert origin.accepted == 1


@pytest.mark.parametrize("end", ["farewell", "fin", "tickets and fin", "answer", "garbage"])
async def test_an_end_that_the_loop_has_not_seen_is_seen(tls_lab: TlsLab, end: str) -> None:
    _, wire, endpoint, upstream = await _idle(tls_lab)
    tickets = wire.outgoing.read()
    if end == "farewell":
        with pytest.raises(ssl.SSLWantReadError):
            wire.ssl.unwrap()
        _send_now(wire, tickets + wire.outgoing.read())
    elif end == "answer":
        _send_now(wire, tickets + wire.encrypt(OK))
    elif end == "garbage":
        _send_now(wire, b"HTTP/1.1 400 Bad Request\r\n\r\n")
    else:
        if end == "tickets and fin":
            _send_now(wire, tickets)
        with socket.socket(fileno=os.dup(wire.writer.get_extra_info("socket").fileno())) as sock:
            sock.shutdown(socket.SHUT_WR)
    assert not upstream.is_usable(upstream.idle_since_s + 1)
    upstream.transport.abort()
    await eventually(lambda: endpoint.open == 0)
    await tls_lab.router.flush()
    is_odd = end == "answer"
    assert tls_lab.router.counted("upstream_failures", "v1", "unsolicited") == is_odd


async def test_a_connection_that_said_farewell_while_idle_is_not_used(tls_lab: TlsLab) -> None:
    origin, wire, endpoint, _ = await _idle(tls_lab)
    wire._flush()
    wire.farewell()
    await eventually(lambda: endpoint.open == 0)
    assert (await tls_lab.lab.ask(request())).status == 200
    assert origin.accepted == 2


async def test_an_idle_connection_is_used_again(tls_lab: TlsLab) -> None:
    origin = await tls_lab.answering()
    router = await tls_lab.start(tls_lab.document(origin))
    for _ in range(5):
        assert (await tls_lab.lab.ask(request())).status == 200
        (endpoint,) = router.pool().endpoints
        for idle in endpoint.idle:
            idle.idle_since_s -= 1.0  # so that it is looked at
    assert origin.accepted == 1


async def test_nothing_is_left_for_the_garbage_collector(tls_lab: TlsLab) -> None:
    origin = await tls_lab.answering()
    router = await tls_lab.start(tls_lab.listening(tls_lab.document(origin)))
    client = await tls_lab.client()
    client.send(request())
    assert (await client.message()).status == 200
    gc.collect()
    gc.disable()
    try:
        client.farewell()
        await eventually(lambda: not router.connections)
        router.pool().endpoints[0].release()
        await eventually(lambda: router.pool().open == 0)
        await asyncio.sleep(0)
        assert [one for one in gc.get_objects() if isinstance(one, TlsTransport)] == []
    finally:
        gc.enable()


async def test_an_old_version_is_refused(tls_lab: TlsLab) -> None:
    router = await tls_lab.start(tls_lab.listening(document(await tls_lab.lab.answering())))
    context = tls_lab.authority.client()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that it is old is the point
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, Cut)):
        await tls_lab.client(context)
    await router.flush()
    assert router.counted("tls_handshakes", "version") == 1


def test_a_server_of_the_tests_speaks_the_newest_version(tls_lab: TlsLab) -> None:
    assert server(tls_lab.server).maximum_version == ssl.TLSVersion.MAXIMUM_SUPPORTED
