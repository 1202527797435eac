"""The router itself changes under load: reloads, good and bad, the death of a worker."""

import asyncio
import os
import signal
from collections.abc import Awaitable
from itertools import chain
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

from benchmarks.failover.bench import RATE, Bench, bad, between, p99_s
from benchmarks.failover.load import Load, Outcome
from benchmarks.failover.stand import Stand
from benchmarks.faults.rig import MIB, Figure, eventually

_CONNECTIONS: Final = 64
_RELOAD_EVERY_S: Final = 0.5
_ROUNDS: Final = 6
_RELOADS: Final = 20
"""In a round."""
_QUIET_S: Final = 5.0
_WARM_UP: Final = 6000
"""Requests."""
_WORKERS: Final = 2


def _of_one_endpoint(config: dict[str, Any], number: int) -> dict[str, Any]:
    """That config with all traffic to a backend of the endpoint with that number."""
    endpoints = config["backends"]["models"]["endpoints"]
    backends = {"one": {"endpoints": [endpoints[number]]}}
    return config | {"backends": backends, "routes": [{"name": "models", "backend": "one"}]}


async def reloads(bench: Bench) -> list[Figure]:
    """Reload upon reload; each moves all traffic to another endpoint, so that it can be seen.

    Under one load, in rounds with a quiet time before each: p99 is compared within a round, for
    it drifts by more than a reload costs.
    """
    rounds = 2 if bench.is_quick else _ROUNDS
    configs = _Configs()
    written: list[tuple[float, str]] = []
    quiet: list[list[Outcome]] = []
    busy: list[list[Outcome]] = []
    async with bench.stand(change=configs.take) as it:
        work = it.load(connections=_CONNECTIONS, rate=RATE)
        await work.start()
        await asyncio.sleep(1)  # every connection is open
        held: list[int] = []
        for _ in range(rounds):
            quiet.append(await _during(work, asyncio.sleep(_QUIET_S)))
            if not held:  # what the load itself takes is taken
                held.append(it.memory_bytes())
            busy.append(await _during(work, _turn(it, configs, written)))
            held.append(it.memory_bytes())
        await work.stop()
        bench.account(it, work)
    failed, visible_s = bad(work.outcomes), _visible_s(work, written)
    half = rounds // 2
    first_bytes, next_bytes = held[half] - held[0], held[-1] - held[half]
    slower = sorted(p99_s(b) / p99_s(a) for a, b in zip(quiet, busy, strict=True))
    return [
        Figure(
            f"{len(written)} reloads, one each {_RELOAD_EVERY_S:g} s, under load: failed",
            "0",
            f"{len(failed)} of {work.sent:,}",
            not failed,
            {"failed": len(failed), "sent": work.sent},
        ),
        Figure(
            "... a change visible within",
            "<= 0.25 s",
            f"{visible_s:.2f} s",
            visible_s <= 0.25,
            {"visible_s": visible_s},
        ),
        Figure(
            f"... memory of all processes, by the first {len(written) // 2} and by the others",
            "< + 5 MiB each",
            f"+ {first_bytes / MIB:.1f} MiB, + {next_bytes / MIB:.1f} MiB",
            max(first_bytes, next_bytes) < 5 * MIB,
            {"rss_growth_bytes": first_bytes, "rss_growth_next_bytes": next_bytes},
        ),
        Figure(
            f"... p99, beside quiet times in {rounds} rounds",
            "<= x 1.1",
            f"x {median(slower):.2f} ({slower[0]:.2f}…{slower[-1]:.2f}), "
            f"{p99_s(list(chain(*busy))) * 1000:.1f} ms",
            median(slower) <= 1.1,
            {"p99_ratio": median(slower), "least": slower[0], "most": slower[-1]},
        ),
    ]


async def _during(work: Load, doing: Awaitable[None]) -> list[Outcome]:
    """What became of the requests that were due meanwhile."""
    began_s, before = perf_counter(), len(work.outcomes)
    await doing
    return between(work.outcomes[before:], began_s, perf_counter())


async def _turn(it: Stand, configs: "_Configs", written: list[tuple[float, str]]) -> None:
    """One round of reloads; `written` gets when each was written, and who answers from then on."""
    for _ in range(_RELOADS):
        number = len(written) + 1
        it.write(configs.turn(number))
        written.append((perf_counter(), it.endpoints[number % 3].name))
        await asyncio.sleep(_RELOAD_EVERY_S)


async def many_requests(bench: Bench) -> list[Figure]:
    """A hundred reloads, each after a thousand requests more."""
    count = bench.count(100)
    configs = _Configs()
    async with bench.stand(change=configs.take) as it:
        work = it.load(connections=_CONNECTIONS, rate=RATE)
        await work.start()
        await _sent(work, _WARM_UP)
        before_bytes = it.memory_bytes()
        for number in range(1, count + 1):
            it.write(configs.turn(number))
            await _sent(work, _WARM_UP + 1000 * number)
        await work.stop()
        grown_bytes = it.memory_bytes() - before_bytes
        done = len(it.events("reloaded"))
        bench.account(it, work)
    failed = bad(work.outcomes)
    return [
        Figure(
            f"{count} reloads over {1000 * count:,} requests: failed",
            "0",
            f"{len(failed)} of {work.sent:,}; {done} took place",
            not failed and done == count,
            {"failed": len(failed), "sent": work.sent, "reloads": done},
        ),
        Figure(
            "... memory of all processes",
            "< + 5 MiB",
            f"+ {grown_bytes / MIB:.1f} MiB",
            grown_bytes < 5 * MIB,
            {"rss_growth_bytes": grown_bytes},
        ),
    ]


async def _sent(work: Load, count: int) -> None:
    await eventually(lambda: work.sent >= count, f"{count:,} requests to be sent")


class _Configs:
    """Three configs, each with all traffic to another endpoint."""

    def __init__(self) -> None:
        self._all: list[dict[str, Any]] = []

    def take(self, config: dict[str, Any]) -> None:
        """Start with the first."""
        self._all = [_of_one_endpoint(config, number) for number in range(3)]
        config |= self._all[0]

    def turn(self, number: int) -> dict[str, Any]:
        return self._all[number % 3]


def _visible_s(work: Load, written: list[tuple[float, str]]) -> float:
    """The longest time from a config's writing to the first answer that follows it."""
    worst_s = 0.0
    for at_s, endpoint in written:
        ends = (o.end_s for o in work.outcomes if o.due_s >= at_s and o.endpoint == endpoint)
        worst_s = max(worst_s, min(ends, default=at_s + 99) - at_s)
    return worst_s


async def bad_reload(bench: Bench) -> list[Figure]:
    """A config that names a backend which does not exist."""
    configs: list[dict[str, Any]] = []

    def change(config: dict[str, Any]) -> None:
        config |= _of_one_endpoint(config, 0)
        configs.append(config | {"routes": [{"name": "models", "backend": "nowhere"}]})

    async with bench.stand(change=change) as it:
        work = it.load(connections=_CONNECTIONS, rate=RATE)
        await work.start()
        await asyncio.sleep(1)
        it.write(configs[0])
        await eventually(lambda: it.events("reload_refused"), "the config to be refused")
        await asyncio.sleep(bench.seconds(3))
        await work.stop()
        error = it.events("reload_refused")[0]["errors"][0]
        is_placed = error.startswith(f"{it.config}:1:") and "routes[0].backend" in error
        bench.account(it, work)
    others = [o for o in work.outcomes if not (o.is_good and o.endpoint == "a")]
    return [
        Figure(
            "reload with an unknown backend: failed, or answered by another",
            "0; a line with file, line and path",
            f"{len(others)} of {work.sent:,}; {'there is one' if is_placed else error}",
            not others and is_placed,
            {"failed": len(others), "sent": work.sent},
        )
    ]


async def worker_killed(bench: Bench) -> list[Figure]:
    """SIGKILL of one of two workers."""
    async with bench.stand(change=lambda c: c.update(workers=_WORKERS)) as it:
        work = it.load(connections=_CONNECTIONS, rate=RATE)
        await work.start()
        await asyncio.sleep(bench.seconds(3))
        victim = it.worker_pids()[0]
        connections = _client_connections(victim, it.port)
        killed_s = perf_counter()
        os.kill(victim, signal.SIGKILL)
        await asyncio.sleep(bench.seconds(6))
        await work.stop()
        bench.account(it, work)
    failed = bad(work.outcomes)
    away_s = max(o.took_s for o in work.outcomes if o.due_s >= killed_s)
    return [
        Figure(
            "SIGKILL of one of two workers under load: failed",
            f"<= its {connections} connections",
            f"{len(failed)} of {work.sent:,}",
            len(failed) <= connections,
            {"failed": len(failed), "connections": connections},
        ),
        Figure(
            "... back: the longest wait of a request",
            "< 1 s",
            f"{away_s:.2f} s",
            away_s < 1,
            {"longest_wait_s": away_s},
        ),
    ]


def _client_connections(pid: int, port: int) -> int:
    """Connections of clients that the process holds."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    mine = {f"socket:[{x[9]}]" for x in lines if x[1].endswith(f":{port:04X}") and x[3] == "01"}
    return sum(os.readlink(link) in mine for link in Path(f"/proc/{pid}/fd").iterdir())
