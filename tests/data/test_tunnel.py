"""A tunnel between a client and an endpoint: how it ends, and that nothing of it stays behind."""

import asyncio
import gc

import pytest

from router.data.downstream import Downstream
from router.data.exchange import Exchange
from router.data.tunnel import Tunnel
from router.messages import Drain
from tests.data.harness import Lab, Wire, eventually, soon

ASK = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"


SMALL_BUFFER = 16 * 1024
PIECE = bytes(range(256)) * 256
LONG_BYTES = 100 * len(PIECE)
BUFFERED_MAX_BYTES = 1024 * 1024
"""What the router may hold of a tunnel in one direction: what one reading of the loop brings."""


async def open_tunnel(
    lab: Lab, *, ahead: bytes = b"", behind: bytes = b"", tunnel: str = "1h"
) -> tuple[Wire, Wire]:
    """The client's and the endpoint's end; neither reads unless told to.

    `ahead` is what the client sends before the switch, `behind` what comes right after it.
    """
    ends: list[Wire] = []
    is_over = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.head()
        wire.send(SWITCH + behind)
        ends.append(wire)
        await is_over.wait()

    origin = await lab.origin(script, send_buffer=SMALL_BUFFER)
    backends = {"v1": {"endpoints": [origin.url], "timeout": {"tunnel": tunnel}}}
    await lab.start({"backends": backends, "routes": [{"name": "all", "backend": "v1"}]})
    client = await lab.client(receive_buffer=SMALL_BUFFER)
    client.send(ASK + ahead)
    assert (await client.head()).status == 101
    return client, ends[0]


def buffered(lab: Lab) -> tuple[int, int]:
    """Bytes that the router holds for the client and for the endpoint."""
    (downstream,) = lab.router.connections
    tunnel = downstream.handler
    assert isinstance(tunnel, Tunnel)
    to_endpoint = tunnel._upstream.transport.get_write_buffer_size()
    return downstream.transport.get_write_buffer_size(), to_endpoint


async def send_until_stopped(wire: Wire) -> int:
    """Bytes that `wire` got rid of before the other side stopped it."""
    sent = 0
    stood_still = 0
    while stood_still < 50:
        assert sent < LONG_BYTES * 10, "nobody stops the sender"
        if wire.writer.transport.get_write_buffer_size():
            stood_still += 1
        else:
            stood_still = 0
            wire.send(PIECE)
            sent += len(PIECE)
        await asyncio.sleep(0.002)
    return sent


def in_memory() -> set[type]:
    """Which of the objects that serve a tunnel exist."""
    kinds = (Tunnel, Exchange, Downstream)
    return {type(item) for item in gc.get_objects() if isinstance(item, kinds)}


async def test_an_ended_tunnel_leaves_nothing_for_the_garbage_collector(lab: Lab) -> None:
    """Workers collect rarely: cycles would be memory that grows with every tunnel."""
    client, _ = await open_tunnel(lab)
    gc.collect()
    gc.disable()
    try:
        assert in_memory() == {Tunnel, Exchange, Downstream}
        client.reset()
        await eventually(lambda: not lab.router.connections)
        await eventually(lambda: not in_memory(), 2.0)
    finally:
        gc.enable()


async def test_bytes_that_come_with_the_switch_and_ahead_of_it_arrive(lab: Lab) -> None:
    client, endpoint = await open_tunnel(lab, ahead=PIECE * 10, behind=PIECE[:1000])
    assert await client.exactly(1000) == PIECE[:1000]
    assert await endpoint.exactly(len(PIECE) * 10) == PIECE * 10
    client.reset()


@pytest.mark.parametrize("pieces", [0, 100], ids=["little", "much"])
@pytest.mark.parametrize("is_from_client", [True, False], ids=["client", "endpoint"])
async def test_a_side_that_closes_for_writing_has_everything_delivered_first(
    lab: Lab, is_from_client: bool, pieces: int
) -> None:
    ends = await open_tunnel(lab)
    sender, receiver = ends if is_from_client else reversed(ends)
    said = PIECE[:100] + PIECE * pieces
    sender.send(said)
    sender.half_close()
    assert await receiver.exactly(len(said)) == said
    assert await receiver.end() == b""
    receiver.send(b"the other direction goes on")  # and then ends, with all that was said
    await sender.until(b"goes on")
    receiver.send(said)
    receiver.half_close()
    assert await sender.end() == said
    await eventually(lambda: not lab.router.connections)


@pytest.mark.parametrize("is_from_client", [True, False], ids=["client", "endpoint"])
async def test_a_side_that_does_not_read_stops_the_other(lab: Lab, is_from_client: bool) -> None:
    ends = await open_tunnel(lab)
    sender, receiver = ends if is_from_client else reversed(ends)
    sent = await send_until_stopped(sender)
    assert max(buffered(lab)) <= BUFFERED_MAX_BYTES
    receiver.send(b"hi")  # what goes the other way is not held up
    assert await sender.exactly(2) == b"hi"
    received = await receiver.exactly(sent)
    assert received == PIECE * (sent // len(PIECE))
    sender.reset()


async def test_two_sides_that_do_not_read_stop_each_other(lab: Lab) -> None:
    client, endpoint = await open_tunnel(lab)
    sent = await asyncio.gather(send_until_stopped(client), send_until_stopped(endpoint))
    assert max(buffered(lab)) <= BUFFERED_MAX_BYTES
    both = await asyncio.gather(endpoint.exactly(sent[0]), client.exactly(sent[1]))
    assert [len(data) for data in both] == list(sent)
    client.reset()


@pytest.mark.parametrize("is_from_client", [True, False], ids=["client", "endpoint"])
async def test_what_moves_in_one_direction_keeps_a_tunnel_open(
    lab: Lab, is_from_client: bool
) -> None:
    ends = await open_tunnel(lab, tunnel="300ms")
    sender, receiver = ends if is_from_client else reversed(ends)
    for _ in range(8):
        sender.send(b"x")
        assert await receiver.exactly(1) == b"x"
        await asyncio.sleep(0.1)  # the pace of the sender; silence is what ends the tunnel
    assert await sender.is_ended()


async def test_a_tunnel_outlives_the_beginning_of_a_drain(lab: Lab) -> None:
    client, endpoint = await open_tunnel(lab)
    lab.router.send(Drain(0.0, 30.0))
    await lab.router.flush()
    client.send(b"ping")
    assert await endpoint.exactly(4) == b"ping"
    endpoint.send(b"pong")
    endpoint.half_close()
    assert await client.exactly(4) == b"pong"
    client.half_close()
    await client.end()
    run = lab.router.run
    assert run is not None
    await soon(asyncio.wait([run]))  # it was the last thing to wait for
    assert run.done()


async def test_a_tunnel_does_not_outlive_the_end_of_a_drain(lab: Lab) -> None:
    client, _ = await open_tunnel(lab)
    lab.router.send(Drain(0.0, 0.2))
    run = lab.router.run
    assert run is not None
    await soon(asyncio.wait([run]))
    client.reset()
