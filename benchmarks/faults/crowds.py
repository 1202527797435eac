"""Many clients at once: slow heads, kept-alive connections, idle ones."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle, islice
from time import perf_counter
from typing import Final

from benchmarks.errors import BenchmarkError
from benchmarks.faults.rig import Client, Figure, Rig, rig

HEAD_TIMEOUT_S: Final = 3.0
POOL_MAX: Final = 64
_AT_ONCE: Final = 100
"""Connections opened at the same time."""


async def _crowd(it: Rig, count: int) -> list[Client]:
    clients: list[Client] = []
    while len(clients) < count:
        batch = min(_AT_ONCE, count - len(clients))
        clients += await asyncio.gather(*(it.connect() for _ in range(batch)))
    return clients


async def slowloris(count: int) -> list[Figure]:
    """Clients that send their head a byte at a time, beside one that does not."""
    async with rig(downstream={"head_timeout": f"{HEAD_TIMEOUT_S:g}s"}) as it:
        slow = await _crowd(it, count)
        began_s, reaped_s = {}, {}

        async def wait_end(client: Client) -> None:
            await client.reader.read()  # what the router says, until it closes
            reaped_s[client] = perf_counter()
            client.close()

        for client in slow:
            client.writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nx: ")
            began_s[client] = perf_counter()
        ends = [asyncio.create_task(wait_end(client)) for client in slow]
        async with _healthy(it) as worst:
            await _trickle(slow, reaped_s)
            await asyncio.gather(*ends)
        worst_s = worst[0]
        last_s = max(reaped_s[client] - began_s[client] for client in slow)
    return [
        Figure(
            f"healthy client beside {count:,} slow heads",
            "worst answer <= 50 ms",
            f"{worst_s * 1000:.1f} ms",
            worst_s <= 0.05,
            {"worst_s": worst_s},
        ),
        Figure(
            "slow heads reaped, by total time",
            f"<= the set {HEAD_TIMEOUT_S:g} s + 1 s",
            f"all {len(reaped_s):,} after at most {last_s:.2f} s",
            len(reaped_s) == count and last_s <= HEAD_TIMEOUT_S + 1,
            {"last_s": last_s, "reaped": len(reaped_s)},
        ),
    ]


@asynccontextmanager
async def _healthy(it: Rig) -> AsyncIterator[list[float]]:
    """A healthy client in another process; afterwards the list holds its slowest answer, in s."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.faults.healthy", it.host, str(it.port),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    worst: list[float] = []
    try:
        yield worst
    finally:
        told, _ = await process.communicate(b"")  # closes its standard input
    if process.returncode:
        raise BenchmarkError("the healthy client was not answered 200")
    worst.append(float(told))


async def _trickle(slow: list[Client], reaped_s: dict[Client, float]) -> None:
    """Send a byte of every head about twice a second, until all were answered."""
    turn = cycle(slow)
    end_s = perf_counter() + HEAD_TIMEOUT_S + 5
    while len(reaped_s) < len(slow) and perf_counter() < end_s:
        for client in islice(turn, len(slow) // 50):
            if client not in reaped_s and not client.writer.is_closing():
                client.writer.write(b"x")
        await asyncio.sleep(0.01)


async def keep_alive(count: int) -> list[Figure]:
    """Clients that keep their connection, three requests each, all at the same time."""
    async with rig(backend={"limits": {"connections": POOL_MAX, "pending": 10_000}}) as it:

        async def three() -> int:
            client = await it.connect()
            good = 0
            for _ in range(3):
                client.ask("/small")
                good += await client.answer() == 200
            client.close()
            return good

        began_s = perf_counter()
        good = sum(await asyncio.gather(*(three() for _ in range(count))))
        took_s = perf_counter() - began_s
        most = it.origin.most_open
    return [
        Figure(
            f"{count:,} kept-alive clients x 3 requests",
            f"<= 3 s, no error, at most {POOL_MAX} connections to the endpoint",
            f"{took_s:.2f} s, {3 * count - good} errors, {most} connections",
            took_s <= 3 and good == 3 * count and most <= POOL_MAX,
            {"seconds": took_s, "errors": 3 * count - good, "upstream_connections": most},
        )
    ]


async def idle(count: int) -> list[Figure]:
    """Connections that had one answer and wait."""
    async with rig() as it:
        for client in await _crowd(it, _AT_ONCE):  # what is allocated once, whoever comes
            client.ask("/small")
            await client.answer()
            client.close()
        before = it.worker_rss_bytes()
        clients = await _crowd(it, count)
        answered = await _ask_all(clients)
        each_kib = (it.worker_rss_bytes() - before) / count / 1024
        again = await _ask_all(clients)
        for client in clients:
            client.reset()
    return [
        Figure(
            f"{count:,} idle connections held",
            "<= 8 KiB each, all answer again",
            f"{each_kib:.1f} KiB each, {again:,} answer again",
            each_kib <= 8 and answered == again == count,
            {"kib_each": each_kib, "answered_again": again},
        )
    ]


async def _ask_all(clients: list[Client]) -> int:
    """How many were answered 200."""
    good = 0
    for start in range(0, len(clients), _AT_ONCE):
        batch = clients[start : start + _AT_ONCE]
        for client in batch:
            client.ask("/small")
        good += sum([await client.answer() == 200 for client in batch])
    return good
