"""More than usual: mirrors that fail, thousands of idle clients, four times what a backend can."""

import asyncio
from dataclasses import dataclass
from math import inf
from time import perf_counter
from typing import Any, Final

from benchmarks.failover import load
from benchmarks.failover.bench import RATE, Bench, bad, p99_s
from benchmarks.failover.load import FAILED, LEFT, REFUSED, Connection, Load
from benchmarks.failover.stand import Stand
from benchmarks.faults.rig import MIB, Figure
from benchmarks.figures import quantile
from benchmarks.procs import rss_bytes

_CONNECTIONS: Final = 64
_IDLE: Final = 5000
_CAPACITY: Final = 300
"""Requests a second that the three endpoints answer together."""
_PATIENCE_S: Final = 1.0
"""After that an answer is of no use to the client, who leaves."""
_IN_FLIGHT: Final = 30
"""A tenth of a second of what the backend can."""


def _mirrored(config: dict[str, Any]) -> None:
    """Two endpoints answer, the third gets a copy of everything."""
    *answering, mirror = config["backends"]["models"]["endpoints"]
    config["backends"]["models"]["endpoints"] = answering
    config["backends"]["mirror"] = {"endpoints": [mirror]}
    config["routes"][0]["shadow"] = [{"backend": "mirror", "sample": "100%"}]


async def mirrors(bench: Bench) -> list[Figure]:
    """A mirror that hangs, is slow, resets, or is gone, beside one that answers."""
    figures = []
    async with bench.stand(change=_mirrored) as it:
        mirror = it.endpoints[2]
        await _mirror_load(it, bench.count(5000))  # warm-up
        quiet = await _mirror_load(it, bench.count(20_000))
        before_bytes = it.memory_bytes()
        mirror.freeze()
        hung = await _mirror_load(it, bench.count(20_000))
        figures.append(_mirror_figure("hangs", quiet, hung, it.memory_bytes() - before_bytes))
        mirror.thaw()
        for what, mode, argument in (("is slow", "slow", 1.0), ("resets", "reset-head", 0)):
            mirror.tell(mode, argument)
            work = await _mirror_load(it, bench.count(10_000))
            grown_bytes = it.memory_bytes() - before_bytes
            figures.append(_mirror_figure(what, quiet, work, grown_bytes))
        await mirror.kill()
        gone = await _mirror_load(it, bench.count(10_000))
        figures.append(_mirror_figure("is gone", quiet, gone, it.memory_bytes() - before_bytes))
    return figures


async def _mirror_load(it: Stand, count: int) -> Load:
    work = it.load(connections=_CONNECTIONS, rate=RATE)
    await work.run(count / RATE)
    return work


def _mirror_figure(what: str, quiet: Load, work: Load, grown_bytes: int) -> Figure:
    failed = bad(work.outcomes)
    p50 = _p50_s(work) / _p50_s(quiet)
    p99 = p99_s(work.outcomes) / p99_s(quiet.outcomes)
    return Figure(
        f"mirror {what}, {work.sent:,} requests",
        "p50 x 1.1, p99 x 2, 0 failed, <= + 10 MiB",
        f"p50 x {p50:.2f}, p99 x {p99:.2f}, {len(failed)} failed, + {grown_bytes / MIB:.1f} MiB",
        p50 <= 1.1 and p99 <= 2 and not failed and grown_bytes <= 10 * MIB,
        {"p50_ratio": p50, "p99_ratio": p99, "failed": len(failed), "rss_growth": grown_bytes},
    )


def _p50_s(work: Load) -> float:
    return quantile(sorted(outcome.took_s for outcome in work.outcomes if outcome.is_good), 0.5)


async def idle(bench: Bench) -> list[Figure]:
    """Thousands of kept connections that do nothing, and a neighbour that does."""
    count = bench.count(_IDLE)
    async with bench.stand() as it:
        await it.load(connections=_CONNECTIONS).run(0.5)  # what is allocated once
        worker = it.worker_pids()[0]
        before_bytes = rss_bytes(worker)
        connections = await _connect(it, count)
        answered = await _ask_all(connections)
        each_kib = (rss_bytes(worker) - before_bytes) / count / 1024
        neighbour = it.load(connections=1, rate=100)
        await neighbour.run(bench.seconds(6))
        again = await _ask_all(connections)
        for connection in connections:
            connection.close()
    worst_s = p99_s(neighbour.outcomes)
    return [
        Figure(
            f"{count:,} idle keep-alive connections",
            "<= 8 KiB each; all answer again; a neighbour's p99 <= 10 ms",
            f"{each_kib:.1f} KiB each; {again:,} answer again; p99 {worst_s * 1000:.1f} ms",
            each_kib <= 8 and answered == again == count and worst_s <= 0.01,
            {"kib_each": each_kib, "answered_again": again, "neighbour_p99_s": worst_s},
        )
    ]


async def _connect(it: Stand, count: int) -> list[Connection]:
    loop = asyncio.get_running_loop()
    found: list[Connection] = []
    while len(found) < count:
        opening = (loop.create_connection(Connection, "127.0.0.1", it.port) for _ in range(50))
        found += [connection for _, connection in await asyncio.gather(*opening)]
    return found


async def _ask_all(connections: list[Connection]) -> int:
    """How many were answered 200."""
    good = 0
    request = b"GET /x HTTP/1.1\r\nhost: models\r\nx-id: G0\r\n\r\n"
    for start in range(0, len(connections), 50):
        asked = (connection.ask(request) for connection in connections[start : start + 50])
        replies = await asyncio.gather(*asked)
        good += sum(not error and reply.status == 200 for reply, error in replies)
    return good


async def overload(bench: Bench) -> list[Figure]:
    """Four times what the backend can, with the defaults and with limits."""
    defaults = await _overload(bench, {})
    adaptive = await _overload(bench, {"adaptive": {}})
    fixed = await _overload(bench, {"in_flight": _IN_FLIGHT, "pending": 0})
    return [
        _overload_figure("defaults", defaults, _Aim(200, 100)),
        _overload_figure(f"in_flight: {_IN_FLIGHT}, pending: 0", fixed, _LIMITED),
        _overload_figure("adaptive", adaptive, _LIMITED),
    ]


@dataclass(frozen=True, slots=True)
class _Aim:
    """At least so many answers a second that are of use, at most so much more memory.

    `answer_s`, `refusal_s`: p99 of answers and of refusals.
    """

    useful_each_s: float
    grown_mib: float
    answer_s: float = inf
    refusal_s: float = inf

    def words(self) -> str:
        words = f">= {self.useful_each_s:g}/s useful, <= + {self.grown_mib:g} MiB"
        if self.answer_s == inf:
            return words
        times = (f"{s * 1000:.0f} ms" for s in (self.answer_s, self.refusal_s))
        return f"{words}, p99 of answers <= {next(times)}, of refusals <= {next(times)}"


_LIMITED: Final = _Aim(285, 20, 0.15, 0.02)


@dataclass(frozen=True, slots=True)
class _Strained:
    work: Load
    seconds: float
    grown_bytes: int


async def _overload(bench: Bench, limits: dict[str, Any]) -> _Strained:
    def change(config: dict[str, Any]) -> None:
        config["backends"]["models"]["limits"] = limits

    async with bench.stand(change=change) as it:
        for endpoint in it.endpoints:
            endpoint.tell("serial", _CAPACITY / len(it.endpoints))
        before_bytes = it.memory_bytes()
        work = it.load(
            connections=8 * _CAPACITY, rate=4 * _CAPACITY, posts=False, patience_s=_PATIENCE_S
        )
        began_s = perf_counter()
        await work.run(bench.seconds(15))
        return _Strained(work, perf_counter() - began_s, it.memory_bytes() - before_bytes)


def _overload_figure(what: str, found: _Strained, aim: _Aim) -> Figure:
    outcomes = found.work.outcomes
    refused = sorted(outcome.took_s for outcome in outcomes if outcome.kind == REFUSED)
    kinds = load.kinds(outcomes)
    useful = sum(outcome.is_good for outcome in outcomes) / found.seconds
    grown_mib = found.grown_bytes / MIB
    answer_s = p99_s(outcomes)
    refusal_s = quantile(refused, 0.99) if refused else 0.0
    is_quick = answer_s <= aim.answer_s and refusal_s <= aim.refusal_s
    return Figure(
        f"4 x overload of {_CAPACITY}/s, {what}",
        aim.words(),
        f"{useful:.0f}/s useful, + {grown_mib:.1f} MiB, p99 of answers {answer_s * 1000:.0f} ms, "
        f"of {len(refused):,} refusals {refusal_s * 1000:.1f} ms; {kinds[LEFT]:,} left, "
        f"{kinds[FAILED]} broken",
        useful >= aim.useful_each_s
        and grown_mib <= aim.grown_mib
        and is_quick
        and not kinds[FAILED],
        {"useful_each_s": useful, "answer_p99_s": answer_s, "refusal_p99_s": refusal_s},
    )
