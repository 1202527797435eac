"""`websockets` through the router: it sees of a server what it sees of it directly."""

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tests.clients.websocket_server import MAX_BYTES, WebSocketServer
from tests.data.harness import eventually
from tests.serve.harness import DEADLINE_S, Router, document, poll, serving, total

pytestmark = pytest.mark.process
SIZES = (0, 1, 125, 126, 127, 65535, 65536, 65537, 1024 * 1024)
"""Around the borders where a frame's length takes another form (RFC 6455 section 5.2)."""


@pytest.fixture(params=["direct", "routed"])
def ws(request: pytest.FixtureRequest, url: str, websocket: WebSocketServer) -> str:
    """The server's address: its own, and the router's. Every test holds for both."""
    chosen = url if request.param == "routed" else websocket.url
    return chosen.replace("http", "ws") + "/ws"


def opened(address: str, compression: str | None = None) -> connect:
    return connect(address, compression=compression, max_size=MAX_BYTES)


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("path", ["echo", "pieces"])
async def test_messages_of_every_size_come_back(
    ws: str, path: str, compression: str | None
) -> None:
    async with opened(f"{ws}/{path}", compression) as connection:
        for size in SIZES:
            if path == "pieces" and not size:
                continue  # no piece, no message
            for message in (os.urandom(size), "ü" * (size // 2)):
                if path == "pieces" and not message:
                    continue
                await connection.send(message)
                assert await connection.recv() == message
        extensions = connection.response and connection.response.headers.get(
            "sec-websocket-extensions", ""
        )
        assert bool(extensions) == (compression is not None)


async def test_fragments_keep_their_borders(ws: str) -> None:
    async with opened(f"{ws}/pieces") as connection:
        await connection.send(["a" * 1500, "", "b" * 700])
        got = [piece async for piece in connection.recv_streaming()]
        # the last, empty frame ends the message
        assert [len(piece) for piece in got] == [1000, 1000, 200, 0]


@pytest.mark.parametrize("payload", [b"", b"x", os.urandom(125)], ids=["empty", "one", "full"])
async def test_pings_are_answered_both_ways(ws: str, payload: bytes) -> None:
    async with opened(f"{ws}/ping") as connection:
        await (await connection.ping(payload or None))
        await connection.send(payload)
        assert await connection.recv() == f"pong for {payload!r}"


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1008, 1011, 3000, 4999])
async def test_the_server_closes_with_code_and_reason(ws: str, code: int) -> None:
    async with opened(f"{ws}/close?{code}") as connection:
        with pytest.raises(ConnectionClosed) as caught:
            await connection.recv()
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (code, f"because of {code}")


@pytest.mark.parametrize("code", [1000, 1001, 4000])
async def test_the_client_closes_with_code_and_reason(
    ws: str, websocket: WebSocketServer, code: int
) -> None:
    reason = f"{code} {os.urandom(8).hex()}"
    async with opened(f"{ws}/echo") as connection:
        await connection.close(code, reason)
    await eventually(lambda: (code, reason) in websocket.endings)
    assert (connection.close_code, connection.close_reason) == (code, reason)


async def test_a_server_that_breaks_off_is_no_clean_end(ws: str) -> None:
    async with opened(f"{ws}/drop") as connection:
        await connection.send("go")
        with pytest.raises(ConnectionClosed) as caught:
            await connection.recv()
    assert caught.value.rcvd is None
    assert connection.close_code == 1006


async def test_a_client_that_breaks_off_is_no_clean_end(
    ws: str, websocket: WebSocketServer
) -> None:
    before = websocket.endings.count((1006, ""))
    async with opened(f"{ws}/echo") as connection:
        await connection.send("x")
        await connection.recv()
        connection.transport.abort()
    await eventually(lambda: websocket.endings.count((1006, "")) > before)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["v1.test"], "v1.test"), (["other", "v1.test", "v2.test"], "v2.test"), (None, None)],
)
async def test_a_subprotocol_is_agreed_on(
    ws: str, offered: list[Subprotocol] | None, chosen: str | None
) -> None:
    async with connect(f"{ws}/echo", subprotocols=offered) as connection:
        assert connection.subprotocol == chosen


@pytest.mark.parametrize("code", [400, 403])
async def test_a_refused_handshake_is_an_ordinary_answer(ws: str, code: int) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with opened(f"{ws}/{code}"):
            pass
    response = caught.value.response
    assert (response.status_code, response.body) == (code, b"refused with %d\n" % code)


async def test_fifty_connections_talk_at_once(ws: str) -> None:
    async def talk(number: int) -> None:
        async with opened(f"{ws}/echo", "deflate") as connection:
            sent = [os.urandom(number * 100) for _ in range(20)]
            await asyncio.gather(*(connection.send(message) for message in sent))
            assert [await connection.recv() for _ in sent] == sent

    await asyncio.gather(*(talk(number) for number in range(50)))


async def test_100_messages_in_flight_keep_their_order(ws: str) -> None:
    async with opened(f"{ws}/echo") as connection:
        sent = [b"%d" % number * 5000 for number in range(100)]

        async def send(connection: ClientConnection) -> None:
            for message in sent:
                await connection.send(message)

        async with asyncio.TaskGroup() as group:
            group.create_task(send(connection))
            assert [await connection.recv() for _ in sent] == sent


# servers that answer an upgrade with something else, and upgrades that are none


@contextmanager
def answering(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers one request with these bytes and closes; what it was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE_S)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while not asked or b"\r\n\r\n" not in asked[-1]:
                    asked.append(b"".join(asked[-1:]) + connection.recv(65536))
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
        thread.join(DEADLINE_S)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(
            b"HTTP/1.1 200 OK\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"content-length: 2\r\n\r\nno",
            200,
            id="200 with upgrade is no switch",  # CVE-2024-23326
        ),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", 502, id="101 to nothing"),
        pytest.param(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
            502,
            id="101 to another protocol",
        ),
        pytest.param(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", 503, id="503"),
    ],
)
async def test_what_is_no_switch_opens_no_tunnel(
    router: Router, tmp_path_factory: pytest.TempPathFactory, answer: bytes, status: int
) -> None:
    with answering(answer) as (server, asked):
        config = document([("v1", server)])
        config["backends"]["v1"]["retry"] = {"attempts": 1}  # it answers once
        with (
            serving(tmp_path_factory.mktemp("router"), config) as own,
            pytest.raises(InvalidStatus) as caught,
        ):
            await connect(f"ws://{own.listen}/plain/x")
    assert caught.value.response.status_code == status
    assert b"upgrade: websocket\r\n" in asked[-1].lower()


def test_an_upgrade_with_a_body_is_an_ordinary_request(url: str, router: Router) -> None:
    """CVE-2026-69243: bytes of the body must never be read as the tunnel's."""
    host, _, port = router.listen.rpartition(":")
    ask = (
        b"GET /seen HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"content-length: 5\r\n\r\nhello"
    )
    with socket.create_connection((host, int(port)), DEADLINE_S) as raw:
        raw.sendall(ask)
        answer = raw.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'"body_bytes": 5' in answer
    assert b'"upgrade"' not in answer


def test_nothing_of_all_this_is_left_in_the_router(router: Router) -> None:
    poll(lambda: router.metrics()["pointsman_requests_in_flight"] == 0, "idle")
    assert total(router.metrics(), "pointsman_workers_restarted_total") == 0
