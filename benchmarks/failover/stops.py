"""The router is told to stop amid requests, event streams and WebSockets."""

import asyncio
import os
import signal
from collections.abc import Coroutine
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

from benchmarks.errors import BenchmarkError
from benchmarks.failover.bench import Bench
from benchmarks.failover.endpoint import EVENT_EVERY_S
from benchmarks.failover.load import Connection
from benchmarks.failover.stand import Stand
from benchmarks.faults.rig import Figure, eventually

_ENDLESS: Final = 100_000
"""Events, or messages on a WebSocket, that are not said before the run is over."""
_FRAME: Final = b"\x81\x84\0\0\0\0%04d"
"""A masked text frame of four digits. The endpoint gives back the same bytes."""
_UPGRADE: Final = (
    b"GET /ws HTTP/1.1\r\nhost: models\r\nx-id: %b\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class _Flight:
    """What is in flight when the router is told to stop: so many of each, and how long they take.

    `endless`: so many streams and as many WebSockets besides that would go on for ever.
    """

    slow: int
    streams: int
    sockets: int
    slow_s: float
    streams_s: float
    grace_s: float
    endless: int = 0

    @property
    def count(self) -> int:
        """Without those that are endless."""
        return self.slow + self.streams + self.sockets

    def words(self) -> str:
        if not self.sockets:
            return f"{self.slow} slow requests and {self.streams} SSE streams"
        return (
            f"{self.slow} slow requests, {self.streams} SSE streams and {self.sockets} WebSockets"
        )

    def start(self, it: Stand) -> list[Coroutine[Any, Any, bool]]:
        steps = round(self.streams_s / EVENT_EVERY_S)
        return [
            *(_ask(it, b"POST /x", b"S%d" % n) for n in range(self.slow)),
            *(_ask(it, b"GET /events/%d" % steps, b"E%d" % n) for n in range(self.streams)),
            *(_talk(it, b"W%d" % n, steps) for n in range(self.sockets)),
        ]

    def start_endless(self, it: Stand) -> list[Coroutine[Any, Any, bool]]:
        numbers = range(self.endless)
        path = b"GET /events/%d" % _ENDLESS
        return [
            *(_ask(it, path, b"F%d" % n) for n in numbers),
            *(_talk(it, b"X%d" % n, _ENDLESS) for n in numbers),
        ]


@dataclass(frozen=True, slots=True)
class _Stopped:
    """How it went. Times in seconds from SIGTERM, but `after_last_s`."""

    cut: int
    """Of those that could end in time."""
    after_last_s: float
    """From the last end of anything to the exit."""
    exit_s: float
    status: int | None
    first_endless_s: float
    """When the first of the endless was ended; 0 when there was none."""
    turned_away: int
    newcomers_cut: int

    def words(self) -> str:
        return (
            f"status {self.status}; of those that came later {self.turned_away} turned away, "
            f"{self.newcomers_cut} cut"
        )

    @property
    def is_clean(self) -> bool:
        return not self.cut and self.status == 0 and not self.newcomers_cut


async def few(bench: Bench) -> list[Figure]:
    """A stop as it may happen at any time."""
    flight = _Flight(100, 20, 0, slow_s=2, streams_s=3, grace_s=20)
    return [_in_time(flight, await _stop(bench, flight))]


async def thousand(bench: Bench) -> list[Figure]:
    """A stop with a thousand in flight: all could end in time, then some that would never."""
    count = bench.count(100)
    flight = _Flight(7 * count, 2 * count, count, slow_s=4, streams_s=5, grace_s=20)
    mixed = _Flight(7 * count, 2 * count, count, slow_s=4, streams_s=5, grace_s=8, endless=10)
    return [
        _in_time(flight, await _stop(bench, flight)),
        _at_the_end(mixed, await _stop(bench, mixed)),
    ]


def _in_time(flight: _Flight, found: _Stopped) -> Figure:
    return Figure(
        f"graceful stop with {flight.words()}: cut",
        "0; exit within 0.5 s of the last, status 0",
        f"{found.cut} of {flight.count:,}; exit after {found.after_last_s:.2f} s, {found.words()}",
        found.is_clean and found.after_last_s <= 0.5,
        {
            "cut": found.cut,
            "exit_s": found.after_last_s,
            "newcomers_cut": found.newcomers_cut,
        },
    )


def _at_the_end(flight: _Flight, found: _Stopped) -> Figure:
    grace_s, more = flight.grace_s, 2 * flight.endless
    return Figure(
        f"... and {more} that never end, grace {grace_s:g} s: cut of the others",
        f"0; the {more} not before the grace is over; exit <= {grace_s + 1:g} s",
        f"{found.cut} of {flight.count:,}; the {more} from {found.first_endless_s:.2f} s on; "
        f"exit after {found.exit_s:.2f} s, {found.words()}",
        found.is_clean and found.first_endless_s >= grace_s and found.exit_s <= grace_s + 1,
        {
            "cut": found.cut,
            "exit_s": found.exit_s,
            "first_endless_s": found.first_endless_s,
            "newcomers_cut": found.newcomers_cut,
        },
    )


async def _stop(bench: Bench, flight: _Flight) -> _Stopped:
    def change(config: dict[str, Any]) -> None:
        config["drain_timeout"] = f"{flight.grace_s:g}s"
        config["backends"]["models"]["timeout"]["first_byte"] = f"{2 * flight.slow_s:g}s"

    async with bench.stand(change=change) as it:
        for endpoint in it.endpoints:
            endpoint.tell("slow", flight.slow_s)
        asked = [asyncio.create_task(_ended(work)) for work in flight.start(it)]
        endless = [asyncio.create_task(_ended(work)) for work in flight.start_endless(it)]
        everything = [*asked, *endless]
        await eventually(lambda: it.delivered().total() >= len(everything), "all to arrive")
        if early := sum(task.done() for task in everything):
            raise BenchmarkError(f"{early} ended before the stop")
        told_s = perf_counter()
        os.kill(it.process.pid, signal.SIGTERM)
        newcomers = asyncio.create_task(_newcomers(it))
        ends = await asyncio.gather(*asked)
        endless_ends = await asyncio.gather(*endless)
        await eventually(lambda: it.process.status() is not None, "the router to exit")
        exit_s = perf_counter()
        turned_away, newcomers_cut = await newcomers
        last_s = max(at_s for _, at_s in [*ends, *endless_ends])
        return _Stopped(
            cut=sum(not is_whole for is_whole, _ in ends),
            after_last_s=exit_s - last_s,
            exit_s=exit_s - told_s,
            status=it.process.status(),
            first_endless_s=min((at_s - told_s for _, at_s in endless_ends), default=0.0),
            turned_away=turned_away,
            newcomers_cut=newcomers_cut,
        )


async def _ended(work: Coroutine[Any, Any, bool]) -> tuple[bool, float]:
    """Whether it is whole, and when it ended."""
    is_whole = await work
    return is_whole, perf_counter()


async def _ask(it: Stand, start: bytes, name: bytes) -> bool:
    """Whether the answer is whole."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, "127.0.0.1", it.port)
    lines = b"host: models\r\nx-id: %b\r\ncontent-length: 0\r\n\r\n" % name
    reply, error = await connection.ask(b"%b HTTP/1.1\r\n%b" % (start, lines))
    return not error and reply.status == 200


async def _talk(it: Stand, name: bytes, count: int) -> bool:
    """Whether all that was said on a WebSocket came back, and it ended when the client said so."""
    reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
    try:
        writer.write(_UPGRADE % name)
        if b" 101 " not in await reader.readuntil(b"\r\n\r\n"):
            return False
        for number in range(count):
            frame = _FRAME % (number % 10_000)
            writer.write(frame)
            if await reader.readexactly(len(frame)) != frame:
                return False
            await asyncio.sleep(EVENT_EVERY_S)
        writer.write_eof()
        return await reader.read() == b""
    except (OSError, asyncio.IncompleteReadError):
        return False
    finally:
        writer.transport.abort()


async def _newcomers(it: Stand) -> tuple[int, int]:
    """Connect until the router is gone: how many were turned away, and how many were cut."""
    turned_away = cut = 0
    loop = asyncio.get_running_loop()
    while it.process.status() is None:
        try:
            _, connection = await loop.create_connection(Connection, "127.0.0.1", it.port)
            _, error = await connection.ask(b"GET /health HTTP/1.1\r\nhost: models\r\n\r\n")
            cut += bool(error)
            connection.close()
        except OSError:
            turned_away += 1
        await asyncio.sleep(0.02)
    return turned_away, cut
