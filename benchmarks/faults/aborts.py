"""Whether anything is left behind by exchanges that were broken off in every way."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from benchmarks.errors import BenchmarkError
from benchmarks.faults.rig import MIB, Client, Figure, Rig, eventually, rig

_AT_ONCE: Final = 50
_HOSTS: Final = tuple(f"127.0.0.{number}" for number in range(1, 9))
"""Connections that the router ends keep their port for a minute: one address would run out."""
_UPGRADE: Final = b"connection: upgrade\r\nupgrade: websocket\r\n"


async def leak(count: int) -> list[Figure]:
    """`count` broken exchanges of all kinds, after three fifths as many to warm up.

    Caches fill and the allocator settles meanwhile: memory grows by 0.5 MiB from the 5,000th
    exchange to the 20,000th, by as much again to the 55,000th, and by 0.05 MiB from there to the
    150,000th.
    """
    async with rig(hosts=_HOSTS) as it:
        await _abort(it, max(count * 3 // 5, 1000))
        before = it.worker_rss_bytes()
        await _abort(it, count)
        await asyncio.sleep(1)
        grown = it.worker_rss_bytes() - before
        in_flight = await _settled(it, "pointsman_requests_in_flight")
        connections = await _settled(it, "pointsman_downstream_connections")
        stuck = it.origin.busy
    return [
        Figure(
            f"{count:,} exchanges broken off",
            "memory <= + 1 MiB, nothing stuck",
            f"memory + {grown / MIB:.2f} MiB; left: {in_flight:g} requests, {connections:g} clients"
            f", {stuck} busy connections to the endpoint",
            grown <= MIB and not (in_flight or connections or stuck),
            {"rss_growth_bytes": grown, "stuck": in_flight + connections + stuck},
        )
    ]


async def _settled(it: Rig, gauge: str) -> float:
    """The gauge's value when it is 0, or after 5 s."""
    value = 1.0
    for _ in range(50):
        value = await it.gauge(gauge)
        if value == 0:
            break
        await asyncio.sleep(0.1)
    return value


async def _abort(it: Rig, count: int) -> None:
    left = iter(range(count))

    async def work() -> None:
        for number in left:
            client = await it.connect()
            await WAYS[number % len(WAYS)](it, client, b"%d" % number)
            client.reset()

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(work())


async def _amid_the_head(_: Rig, client: Client, name: bytes) -> None:
    client.writer.write(b"GET /small HTTP/1.1\r\nhost")
    await client.writer.drain()


async def _at_once(_: Rig, client: Client, name: bytes) -> None:
    client.ask("/small")


async def _before_the_answer(it: Rig, client: Client, name: bytes) -> None:
    client.ask("/hang", b"x-id: %b\r\n" % name)
    answer = asyncio.create_task(client.head())
    await eventually(lambda: answer.done() or it.origin.delivered[name], "the request to arrive")
    if answer.done():
        raise BenchmarkError(f"answered {answer.result()[0]} for an endpoint that does not answer")
    answer.cancel()
    del it.origin.delivered[name]


async def _amid_the_answer(_: Rig, client: Client, name: bytes) -> None:
    client.ask("/bytes/5000000")
    await client.head()


async def _amid_the_upload(_: Rig, client: Client, name: bytes) -> None:
    client.ask("/sink", b"content-length: 1000000\r\n\r\n" + bytes(50_000), b"POST")
    await client.writer.drain()


async def _malformed(_: Rig, client: Client, name: bytes) -> None:
    client.ask("/small", b"x : y\r\n")
    await client.answer()


async def _cut_by_the_endpoint(_: Rig, client: Client, name: bytes) -> None:
    client.ask("/cut")
    await client.head()


async def _in_a_tunnel(_: Rig, client: Client, name: bytes) -> None:
    client.ask("/switch", _UPGRADE)
    await client.head()
    client.writer.write(bytes(1000))


async def _answered(_: Rig, client: Client, name: bytes) -> None:
    client.ask("/small")
    await client.answer()


WAYS: Final[tuple[Callable[[Rig, Client, bytes], Awaitable[None]], ...]] = (
    _amid_the_head,
    _at_once,
    _before_the_answer,
    _amid_the_answer,
    _amid_the_upload,
    _malformed,
    _cut_by_the_endpoint,
    _in_a_tunnel,
    _answered,
)
