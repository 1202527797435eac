"""Any conversation of WebSocket events is the same through the router as without it.

Both ends are `wsproto` state machines over real sockets, driven by one script that hypothesis
makes up. An end's transcript is what it received, put together to whole frames, and how the bytes
ended; segmentation is nobody's business. Half of the conversations are compressed.
"""

import asyncio
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

import pytest
from hypothesis import HealthCheck, Phase, given, settings
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

from tests.data.harness import eventually
from tests.serve.harness import DEADLINE_S, Router, document, serving

pytestmark = pytest.mark.process

Ending = Literal[
    "close by client", "close by server", "half-close by client", "half-close by server",
    "reset by client", "reset by server",
]  # fmt: skip
Side = Literal["client", "server"]
Kind = Literal["text", "bytes", "ping", "pong"]
Line = tuple[object, ...]
"""Of a transcript: the kind of an event and what it carried."""

DATA: tuple[Kind, ...] = ("text", "bytes")
CONTROL: tuple[Kind, ...] = ("ping", "pong")
SIZES = st.one_of(
    st.integers(0, 200), st.sampled_from([125, 126, 65535, 65536]), st.integers(0, 300_000)
)


@dataclass(frozen=True)
class Step:
    """One frame that `side` sends; `size` in characters or bytes."""

    side: Side
    kind: Kind
    size: int
    is_last: bool = True

    def event(self) -> Event:
        if self.kind == "text":
            return TextMessage("ü" * self.size, message_finished=self.is_last)
        payload = (bytes(range(256)) * (self.size // 256 + 1))[: self.size]
        if self.kind == "bytes":
            return BytesMessage(payload, message_finished=self.is_last)
        return Ping(payload) if self.kind == "ping" else Pong(payload)


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
                    digest = (len(whole), zlib.crc32(whole))
                    self.lines.append((type(event).__name__, digest, event.message_finished))
                    pieces.clear()
            elif isinstance(event, Ping | Pong):
                self.lines.append((type(event).__name__, bytes(event.payload)))
            elif isinstance(event, CloseConnection):
                self.lines.append(("CloseConnection", event.code, event.reason))

    def has(self, kind: str) -> bool:
        return any(line[0] == kind for line in self.lines)

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
    port: int, server: Server, is_compressed: bool, script: list[Step], ending: Ending
) -> tuple[list[Line], list[Line]]:
    """Hold the conversation over `port`: the transcripts of the client and of the server."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = End(reader, writer, WSConnection(ConnectionType.CLIENT))
    extensions = [PerMessageDeflate()] if is_compressed else []
    client.send(Request(host="x", target="/plain/x", extensions=extensions))
    await client.handshake()
    answerer = await server.came.get()
    ends = {"client": client, "server": answerer}
    try:
        for step in script:
            ends[step.side].send(step.event())
        async with asyncio.TaskGroup() as group:
            for end in ends.values():
                group.create_task(end.listen())
            await close(client, answerer, ending, script)
    finally:
        for end in ends.values():
            end.writer.transport.abort()
    return client.lines, answerer.lines


async def close(client: End, server: End, ending: Ending, script: list[Step]) -> None:
    """End it as `ending` says. What is in flight when a connection is reset may be lost: wait."""
    sent = {side: sum(1 for step in script if step.side == side) for side in ("client", "server")}

    def have_all_arrived() -> bool:
        return len(server.lines) >= sent["client"] and len(client.lines) >= sent["server"]

    if ending in ("close by client", "close by server"):
        first, second = (client, server) if ending == "close by client" else (server, client)
        await eventually(have_all_arrived)
        first.send(CloseConnection(4321, "ende ü"))
        await eventually(lambda: second.has("CloseConnection"))
        second.send(CloseConnection(4321, "ende ü"))
        server.writer.write_eof()  # RFC 6455 section 7.1.1: the server closes first
        await eventually(lambda: client.has("end"))
        client.writer.write_eof()
    elif ending in ("half-close by client", "half-close by server"):
        first, second = (client, server) if ending == "half-close by client" else (server, client)
        first.writer.write_eof()
        await eventually(lambda: second.has("end"))
        second.send(BytesMessage(b"still here" * 100_000))
        second.writer.write_eof()
    else:
        await eventually(have_all_arrived)
        (client if ending == "reset by client" else server).reset()


@st.composite
def _says(draw: st.DrawFn, side: Side, is_compressed: bool) -> list[Step]:
    """What one end sends: messages whole or in frames, control frames in between.

    Not in between compressed ones: wsproto cannot read that.
    """
    steps: list[Step] = []
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(DATA))
        frames = draw(st.integers(1, 3))
        for number in range(1, frames + 1):
            steps.append(Step(side, kind, draw(SIZES), number == frames))
            if (number == frames or not is_compressed) and draw(st.booleans()):
                steps.append(Step(side, draw(st.sampled_from(CONTROL)), draw(st.integers(0, 125))))
    return steps


@st.composite
def scripts(draw: st.DrawFn) -> tuple[bool, list[Step]]:
    """Whether messages are compressed, and both ends' steps in some order between them."""
    is_compressed = draw(st.booleans())
    left = [draw(_says("client", is_compressed)), draw(_says("server", is_compressed))]
    script = []
    while able := [steps for steps in left if steps]:
        script.append(draw(st.sampled_from(able)).pop(0))
    return is_compressed, script


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Router, int]]:
    """A router, and the port where it looks for its endpoint."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    config = document([("v1", f"http://127.0.0.1:{port}")])
    with serving(tmp_path_factory.mktemp("router"), config) as router:
        yield router, port


@settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    conversation=scripts(),
    ending=st.sampled_from(get_args(Ending)),
)
def test_any_conversation_is_the_same_through_the_router(
    listening: tuple[Router, int],
    conversation: tuple[bool, list[Step]],
    ending: Ending,
) -> None:
    router, port = listening
    routed_port = int(router.listen.rpartition(":")[2])

    async def both() -> None:
        server = Server()
        async with server.running(port), asyncio.timeout(DEADLINE_S):
            direct = await converse(port, server, *conversation, ending)
            routed = await converse(routed_port, server, *conversation, ending)
        assert routed == direct

    asyncio.run(both())
