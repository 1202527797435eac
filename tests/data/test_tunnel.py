"""A tunnel between a client and an endpoint: how it ends, and that nothing of it stays behind."""

import gc

from router.data.downstream import Downstream
from router.data.exchange import Exchange
from router.data.tunnel import Tunnel
from tests.data.harness import Lab, Wire, eventually

ASK = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"


async def open_tunnel(lab: Lab) -> tuple[Wire, Wire]:
    """The client's and the endpoint's end."""
    ends: list[Wire] = []

    async def script(wire: Wire) -> None:
        await origin.next_request(wire)
        wire.send(SWITCH)
        ends.append(wire)
        await wire.end()

    origin = await lab.origin(script)
    backends = {"v1": {"endpoints": [origin.url]}}
    await lab.start({"backends": backends, "routes": [{"name": "all", "backend": "v1"}]})
    client = await lab.client()
    client.send(ASK)
    assert (await client.head()).status == 101
    return client, ends[0]


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
