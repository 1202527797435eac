"""Any conversation of WebSocket events is the same through the router as without it.

Both ends are `wsproto` state machines over real sockets, driven by one script that hypothesis
makes up. An end's transcript is what it received, put together to whole frames, and how the bytes
ended; segmentation is nobody's business. Half of the conversations are compressed.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wsproto import WSConnection
from wsproto.connection import ConnectionType
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate

from tests.serve.harness import DEADLINE_S, Router, document, serving

pytestmark = pytest.mark.process

Ending = Literal["close by client", "close by server", "half-close", "reset", "silence"]
Side = Literal["client", "server"]
Line = tuple[object, ...]
"""Of a transcript: the kind of an event and what it carried."""


@dataclass
class End:
    """One end of a connection, and what it received."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ws: WSConnection
    lines: list[Line] = field(default_factory=list)
    _open: dict[type, list[str | bytes | bytearray]] = field(default_factory=dict)

    def send(self, event: Event) -> None:
        self.writer.write(self.ws.send(event))

    async def handshake(self) -> None:
        """Read until the other end's half of the handshake has come."""
        while True:
            self.ws.receive_data(await self.reader.read(65536))
            for event in self.ws.events():
                if isinstance(event, Request):
                    self.send(AcceptConnection(extensions=[PerMessageDeflate()]))
                return

    async def listen(self) -> None:
        """Take everything down until the bytes end."""
        try:
            while data := await self.reader.read(65536):
                self.ws.receive_data(data)
                self._take_down()
            self.lines.append(("end",))
        except ConnectionError:
            self.lines.append(("reset",))

    def _take_down(self) -> None:
        for event in self.ws.events():
            if isinstance(event, TextMessage | BytesMessage):
                pieces = self._open.setdefault(type(event), [])
                pieces.append(event.data)
                if event.frame_finished:
                    whole = b"".join(p.encode() if isinstance(p, str) else p for p in pieces)
                    self.lines.append((type(event).__name__, whole, event.message_finished))
                    pieces.clear()
            elif isinstance(event, Ping | Pong):
                self.lines.append((type(event).__name__, bytes(event.payload)))
            elif isinstance(event, CloseConnection):
                self.lines.append(("CloseConnection", event.code, event.reason))

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Server:
    """Hands over each connection that comes."""

    def __init__(self) -> None:
        self.came: asyncio.Queue[End] = asyncio.Queue()
        self.port = 0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end = End(reader, writer, WSConnection(ConnectionType.SERVER))
        await end.handshake()
        await self.came.put(end)

    @asynccontextmanager
    async def running(self, port: int) -> AsyncIterator[None]:
        server = await asyncio.start_server(self.take, "127.0.0.1", port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            await server.wait_closed()


async def converse(
    port: int, server: Server, is_compressed: bool, script: list[tuple[Side, Event]], ending: Ending
) -> tuple[list[Line], list[Line]]:
    """Hold the conversation over `port`: the transcripts of the client and of the server."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = End(reader, writer, WSConnection(ConnectionType.CLIENT))
    extensions = [PerMessageDeflate()] if is_compressed else []
    client.send(Request(host="x", target="/plain/x", extensions=extensions))
    await client.handshake()
    answerer = await server.came.get()
    ends = {"client": client, "server": answerer}
    for side, event in script:
        ends[side].send(event)
    listening = [asyncio.create_task(end.listen()) for end in ends.values()]
    await close(client, answerer, ending, script)
    await asyncio.gather(*listening)
    for end in ends.values():
        end.writer.close()
    return client.lines, answerer.lines


async def close(
    client: End, server: End, ending: Ending, script: list[tuple[Side, Event]]
) -> None:
    """End it as `ending` says. What is in flight when a connection is reset may be lost: wait."""
    sent = {side: sum(1 for by, _ in script if by == side) for side in ("client", "server")}

    async def all_arrived() -> None:
        while len(server.lines) < sent["client"] or len(client.lines) < sent["server"]:
            await asyncio.sleep(0)

    if ending == "close by client" or ending == "close by server":
        first, second = (client, server) if ending == "close by client" else (server, client)
        await all_arrived()
        first.send(CloseConnection(4321, "ende ü"))
        while not any(line[0] == "CloseConnection" for line in second.lines):
            await asyncio.sleep(0)
        second.send(CloseConnection(4321, "ende ü"))
        server.writer.write_eof()  # RFC 6455 section 7.1.1: the server closes first
        while not any(line[0] == "end" for line in client.lines):
            await asyncio.sleep(0)
        client.writer.write_eof()
    elif ending == "half-close":
        client.writer.write_eof()
        while not any(line[0] == "end" for line in server.lines):
            await asyncio.sleep(0)
        server.send(BytesMessage(b"still here"))
        server.writer.write_eof()
    else:
        await all_arrived()
        client.reset()
        client.lines.append(("reset",))


sizes = st.one_of(
    st.integers(0, 200), st.sampled_from([125, 126, 65535, 65536]), st.integers(0, 300_000)
)
payloads = sizes.map(lambda size: bytes(i * size % 251 for i in range(min(size, 251))) * 1200)


@st.composite
def events(draw: st.DrawFn) -> list[Event]:
    """What one end sends: messages whole or in frames, control frames in between."""
    made: list[Event] = []
    for _ in range(draw(st.integers(0, 4))):
        frames = draw(st.integers(1, 3))
        is_text = draw(st.booleans())
        for number in range(frames):
            size = draw(sizes)
            is_last = number == frames - 1
            if is_text:
                made.append(TextMessage("ü" * (size // 2), message_finished=is_last))
            else:
                made.append(BytesMessage(b"\x00\xff" * (size // 2), message_finished=is_last))
            if draw(st.booleans()):
                control = draw(st.sampled_from([Ping, Pong]))
                made.append(control(draw(st.binary(max_size=125))))
    return made


@st.composite
def scripts(draw: st.DrawFn) -> list[tuple[Side, Event]]:
    """Both ends' events, in some order between them."""
    left: dict[Side, list[Event]] = {"client": draw(events()), "server": draw(events())}
    script: list[tuple[Side, Event]] = []
    while left["client"] or left["server"]:
        able: list[Side] = [side for side in ("client", "server") if left[side]]  # type: ignore[misc]  # a list of literals
        side = draw(st.sampled_from(able))
        script.append((side, left[side].pop(0)))
    return script


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> object:
    """A router with a backend at a port of ours: `(router, port)`."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    config = document([("v1", f"http://127.0.0.1:{port}")])
    with serving(tmp_path_factory.mktemp("router"), config) as router:
        yield router, port


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    is_compressed=st.booleans(),
    script=scripts(),
    ending=st.sampled_from(["close by client", "close by server", "half-close", "reset"]),
)
def test_any_conversation_is_the_same_through_the_router(
    listening: tuple[Router, int],
    is_compressed: bool,
    script: list[tuple[Side, Event]],
    ending: Ending,
) -> None:
    router, port = listening
    routed_port = int(router.listen.rpartition(":")[2])

    async def both() -> None:
        server = Server()
        async with server.running(port), asyncio.timeout(DEADLINE_S):
            direct = await converse(port, server, is_compressed, script, ending)
            routed = await converse(routed_port, server, is_compressed, script, ending)
        assert routed == direct

    asyncio.run(both())
