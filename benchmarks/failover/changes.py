"""The router itself changes under load: reloads, good and bad, a stop, the death of a worker."""

import asyncio
import os
import signal
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from benchmarks.failover.bench import RATE, Bench, bad, p99_s
from benchmarks.failover.load import Connection, Load
from benchmarks.failover.stand import Stand
from benchmarks.faults.rig import MIB, Figure, eventually

_CONNECTIONS: Final = 64
_RELOAD_EVERY_S: Final = 0.5
_RELOADS: Final = 60
_SLOW_S: Final = 2.0
_EVENTS: Final = 30
_WORKERS: Final = 2


def _of_one_endpoint(config: dict[str, Any], number: int) -> dict[str, Any]:
    """That config with all traffic to a backend of the endpoint with that number."""
    endpoints = config["backends"]["models"]["endpoints"]
    backends = {"one": {"endpoints": [endpoints[number]]}}
    return config | {"backends": backends, "routes": [{"name": "models", "backend": "one"}]}


async def reloads(bench: Bench) -> list[Figure]:
    """Reload upon reload; each moves all traffic to another endpoint, so that it can be seen."""
    configs: list[dict[str, Any]] = []

    def change(config: dict[str, Any]) -> None:
        configs.extend(_of_one_endpoint(config, number) for number in range(3))
        config |= configs[0]

    written: list[tuple[float, str]] = []
    count = _RELOADS // 3 if bench.is_quick else _RELOADS
    async with bench.stand(change=change) as it:
        quiet = it.load(connections=_CONNECTIONS, rate=RATE)
        await quiet.run(bench.seconds(10))
        for number in range(1, 7):  # what is allocated once
            it.write(configs[number % 3])
            await asyncio.sleep(_RELOAD_EVERY_S)
        before_bytes = it.memory_bytes()
        work = it.load(connections=_CONNECTIONS, rate=RATE)
        await work.start()
        for number in range(1, count + 1):
            it.write(configs[number % 3])
            written.append((perf_counter(), it.endpoints[number % 3].name))
            await asyncio.sleep(_RELOAD_EVERY_S)
        await work.stop()
        grown_bytes = it.memory_bytes() - before_bytes
        bench.account(it, work)
    failed, visible_s = bad(work.outcomes), _visible_s(work, written)
    slower = p99_s(work.outcomes) / p99_s(quiet.outcomes)
    return [
        Figure(
            f"{count} reloads, one each {_RELOAD_EVERY_S:g} s, under load: failed",
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
            "... memory",
            "< + 5 MiB",
            f"+ {grown_bytes / MIB:.1f} MiB",
            grown_bytes < 5 * MIB,
            {"rss_growth_bytes": grown_bytes},
        ),
        Figure(
            "... p99",
            "<= 1.1 x that of the quiet router",
            f"x {slower:.2f} ({p99_s(work.outcomes) * 1000:.1f} ms)",
            slower <= 1.1,
            {"p99_ratio": slower},
        ),
    ]


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


async def graceful_stop(bench: Bench) -> list[Figure]:
    """SIGTERM amid slow requests and streams."""
    async with bench.stand(change=lambda c: c.update(drain_timeout="20s")) as it:
        for endpoint in it.endpoints:
            endpoint.tell("slow", _SLOW_S)
        asked = [asyncio.create_task(_ask(it, b"POST /x", b"S%d" % n)) for n in range(100)]
        path = b"GET /events/%d" % _EVENTS
        asked += [asyncio.create_task(_ask(it, path, b"E%d" % n)) for n in range(20)]
        await eventually(lambda: it.delivered().total() == len(asked), "all to arrive")
        os.kill(it.process.pid, signal.SIGTERM)
        newcomers = asyncio.create_task(_newcomers(it))
        ends = await asyncio.gather(*asked)
        last_s = perf_counter()
        await eventually(lambda: it.process.status() is not None, "the router to exit")
        exit_s = perf_counter() - last_s
        status = it.process.status()
        turned_away, cut_newcomers = await newcomers
    cut = sum(not is_whole for is_whole in ends)
    return [
        Figure(
            "graceful stop with 100 slow requests and 20 SSE streams: cut",
            "0; exit within 0.5 s of the last, status 0",
            f"{cut}; exit after {exit_s:.2f} s, status {status}; of those that came later "
            f"{turned_away} turned away, {cut_newcomers} cut",
            not cut and exit_s <= 0.5 and status == 0 and not cut_newcomers,
            {"cut": cut, "exit_s": exit_s, "newcomers_cut": cut_newcomers},
        )
    ]


async def _ask(it: Stand, start: bytes, name: bytes) -> bool:
    """Whether the answer is whole."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, "127.0.0.1", it.port)
    lines = b"host: models\r\nx-id: %b\r\ncontent-length: 0\r\n\r\n" % name
    reply, error = await connection.ask(b"%b HTTP/1.1\r\n%b" % (start, lines))
    return not error and reply.status == 200


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
