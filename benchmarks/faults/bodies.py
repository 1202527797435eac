"""Long bodies, sides that do not read, heads that do not end, and the delay of single events."""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Final

from benchmarks.errors import BenchmarkError
from benchmarks.faults.origin import PIECE, Origin
from benchmarks.faults.rig import MIB, Client, Figure, Rig, rig

LONG_BYTES: Final = 500_000_000
BODY_BYTES: Final = 50_000_000
_PIECE_BYTES: Final = 2048
"""Of what does not end; sent with pauses, so that the answer can be seen in between."""


async def stalled_reader(seconds: float) -> list[Figure]:
    """A client that asks for 500 MB and reads nothing."""
    async with rig() as it:
        await _warm(it)
        before = it.worker_rss_bytes()
        client = await it.connect()
        client.pause_reading()
        client.ask(f"/bytes/{LONG_BYTES}")
        await asyncio.sleep(seconds)  # what moves, moves now
        unsent = sum(connection.unsent_bytes() for connection in it.origin.open)
        left = it.origin.sent_bytes - unsent
        grown = it.worker_rss_bytes() - before
        client.reset()
    return [_stalled("client that does not read 500 MB", left, grown)]


async def stalled_endpoint(seconds: float) -> list[Figure]:
    """An endpoint that does not read the 500 MB of a client."""
    async with rig() as it:
        await _warm(it)
        before = it.worker_rss_bytes()
        client = await it.connect()
        client.ask("/stalled", b"content-length: %d\r\n" % LONG_BYTES, b"POST")
        sending = asyncio.create_task(_send(client, LONG_BYTES))
        await asyncio.sleep(seconds)
        sent = client.sent_bytes - client.writer.transport.get_write_buffer_size()
        grown = it.worker_rss_bytes() - before
        sending.cancel()
        client.reset()
    return [_stalled("endpoint that does not read 500 MB", sent, grown)]


def _stalled(what: str, left: int, grown: int) -> Figure:
    return Figure(
        what,
        "<= 10 MiB leave the sender, memory <= + 2 MiB",
        f"{left / MIB:.1f} MiB, memory + {grown / MIB:.2f} MiB",
        left <= 10 * MIB and grown <= 2 * MIB,
        {"sent_bytes": left, "rss_growth_bytes": grown},
    )


async def _send(client: Client, count: int) -> None:
    done = 0
    while done < count:
        piece = PIECE[: count - done]
        client.writer.write(piece)
        done += len(piece)
        client.sent_bytes = done
        await client.writer.drain()


async def _warm(it: Rig) -> None:
    """One exchange of some megabytes, so that only growth is measured."""
    client = await it.connect()
    client.ask(f"/bytes/{8 * MIB}")
    await client.answer()
    client.close()


ENDLESS: Final = {
    "request line": (b"GET /", b"x", 414),
    "head": (b"GET / HTTP/1.1\r\nhost: x\r\nx: ", b"x", 431),
    "head of many fields": (b"GET / HTTP/1.1\r\nhost: x\r\n", b"x: y\r\n", 431),
    "chunk extension": (
        b"POST /sink HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5;x=",
        b"x",
        400,
    ),
    "trailers": (
        b"POST /sink HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
        b"x: y\r\n",
        400,
    ),
}
"""What begins, what goes on without end, and the status expected."""


async def endless() -> list[Figure]:
    """Heads, chunk extensions and trailers without end."""
    figures = []
    async with rig() as it:
        await _warm(it)
        for what, (start, more, expected) in ENDLESS.items():
            before = it.worker_rss_bytes()
            client = await it.connect()
            sent, status = await _endless(client, start, more)
            grown = it.worker_rss_bytes() - before
            figures.append(
                Figure(
                    f"endless {what}",
                    f"{expected} within 64 KiB, memory <= + 1 MiB",
                    f"{status} after {sent / 1024:.0f} KiB, memory + {grown / MIB:.2f} MiB",
                    status == expected and sent <= 64 * 1024 and grown <= MIB,
                    {"status": status, "sent_bytes": sent, "rss_growth_bytes": grown},
                )
            )
    return figures


async def _endless(client: Client, start: bytes, more: bytes) -> tuple[int, int]:
    """Bytes sent until the answer, and its status."""
    answer = asyncio.create_task(client.head())
    client.writer.write(start)
    sent = len(start)
    piece = more * (_PIECE_BYTES // len(more))
    while not answer.done() and sent < 4 * MIB:
        client.writer.write(piece)
        sent += len(piece)
        await asyncio.wait([answer], timeout=0.005)
    if not answer.done():
        answer.cancel()
        return sent, 0
    client.reset()
    return sent, answer.result()[0]


async def events(count: int) -> list[Figure]:
    """Server-sent events: how much later they come than without a router."""
    async with rig() as it:
        routed = await _delays(await it.connect(), count)
        direct = await _delays(await _direct(it.origin), count)
    added_s = max(routed) - min(direct)
    return [
        Figure(
            f"{count:,} server-sent events, one each 5 ms",
            "worst added delay <= 5 ms",
            f"{added_s * 1000:.2f} ms (worst without the router: {max(direct) * 1000:.2f} ms)",
            added_s <= 0.005,
            {"worst_added_s": added_s, "worst_direct_s": max(direct)},
        )
    ]


async def _direct(origin: Origin) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", origin.port))


async def _delays(client: Client, count: int) -> list[float]:
    """Seconds from each event's sending to its arrival."""
    client.ask(f"/events/{count}")
    await client.head()
    delays: list[float] = []
    while len(delays) < count:
        line = await client.reader.readuntil(b"\n")
        if line.startswith(b"data: "):
            delays.append(perf_counter() - float(line[6:]))
    client.close()
    return delays


async def bodies(rounds: int) -> list[Figure]:
    """50 MB down and up, one after the other."""
    async with rig() as it:
        down = [await _timed(it.connect, _download) for _ in range(rounds)]
        up = [await _timed(it.connect, _upload) for _ in range(rounds)]
        floor = [await _timed(lambda: _direct(it.origin), _download) for _ in range(rounds)]
        floor_up = [await _timed(lambda: _direct(it.origin), _upload) for _ in range(rounds)]
    return [
        _fifty("down", down, min(floor)),
        _fifty("up", up, min(floor_up)),
    ]


def _fifty(way: str, took_s: list[float], direct_s: float) -> Figure:
    return Figure(
        f"50 MB {way}",
        "<= 0.5 s",
        f"{max(took_s):.2f} s (best {min(took_s):.2f} s, without the router {direct_s:.2f} s)",
        max(took_s) <= 0.5,
        {"worst_s": max(took_s), "best_s": min(took_s), "direct_s": direct_s},
    )


async def _timed(
    connect: Callable[[], Awaitable[Client]], work: Callable[[Client], Awaitable[None]]
) -> float:
    client = await connect()
    began_s = perf_counter()
    await work(client)
    client.close()
    return perf_counter() - began_s


async def _download(client: Client) -> None:
    client.ask(f"/bytes/{BODY_BYTES}")
    _, left = await client.head()
    while left > 0:
        data = await client.reader.read(MIB)
        if not data:
            raise BenchmarkError(f"{left} bytes of a body are missing")
        left -= len(data)


async def _upload(client: Client) -> None:
    client.ask("/sink", b"content-length: %d\r\n" % BODY_BYTES, b"POST")
    await _send(client, BODY_BYTES)
    if await client.answer() != 200:
        raise BenchmarkError("an upload was refused")
