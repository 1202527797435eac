"""`failover`: what is lost when endpoints, workers or the config change, under load.

1. Proxies stand in front of three endpoints, each a process of its own, which are killed, stopped
   and told to fail. The configs are in `workloads/failover`.
2. Every request carries an id that endpoints note, so each is accounted for, and a POST that was
   delivered twice is seen.
3. What concerns endpoints is measured for all proxies, the rest for Pointsman alone.
4. What a scenario found is printed and written when it ends: a run that is broken off keeps it.
"""

import argparse
import asyncio
import gc
import resource
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Final

import uvloop

from benchmarks import machine, peers, report
from benchmarks.failover import changes, losses, stops, strain
from benchmarks.failover.bench import Bench
from benchmarks.faults.rig import Figure
from benchmarks.figures import table
from benchmarks.peers import POINTSMAN, Peer

_FILES: Final = 24_000
_SETTLE_S: Final = 0.5

OF_ALL: Final[dict[str, Callable[[Bench, Peer], Awaitable[list[Figure]]]]] = {
    "killed": losses.killed,
    "hangs": losses.hangs,
    "half-errors": losses.half_errors,
    "all-down": losses.all_down,
    "garbage": losses.garbage,
}
"""Scenarios for every proxy."""
OURS: Final[dict[str, Callable[[Bench], Awaitable[list[Figure]]]]] = {
    "reloads": changes.reloads,
    "reloads-100": changes.many_requests,
    "bad-reload": changes.bad_reload,
    "stop": stops.few,
    "stop-1000": stops.thousand,
    "worker": changes.worker_killed,
    "mirror": strain.mirrors,
    "idle": strain.idle,
    "overload": strain.overload,
}
"""Scenarios for Pointsman alone."""
PEERS: Final = ("nginx", "haproxy", "envoy")

Figures = dict[str, list[Figure]]
"""Proxy -> its figures."""


async def measure(
    bench: Bench,
    contenders: list[Peer],
    only: list[str],
    say: Callable[[str], None],
    take: Callable[[Figures], None],
) -> None:
    """`take` gets the figures of every scenario that is wanted (all when `only` is empty)."""
    for name, of_all in OF_ALL.items():
        if only and name not in only:
            continue
        found: Figures = {peer.name: [] for peer in contenders}
        try:
            for peer in contenders:
                say(f"{name}: {peer.name}")
                found[peer.name] += await of_all(bench, peer)
                await _settle()
        finally:  # what was measured before an error is not lost
            take(found)
    for name, ours in OURS.items():
        if not only or name in only:
            say(name)
            take({POINTSMAN.name: await ours(bench)})
            await _settle()
    take({peer.name: [_twice(bench, peer.name)] for peer in contenders if peer.name in bench.posts})


async def _settle() -> None:
    gc.collect()
    await asyncio.sleep(_SETTLE_S)  # what was just stopped ends


def _twice(bench: Bench, name: str) -> Figure:
    twice = bench.twice[name]
    return Figure(
        "POST delivered twice, all scenarios",
        "0",
        f"{twice} of {bench.posts[name]:,}",
        twice == 0,
        {"twice": twice, "posts": bench.posts[name]},
    )


def text(found: Figures) -> str:
    """The table, in Markdown: what was aimed at, what we reached, what others did."""
    ours, *others = found
    by_name = {other: {figure.name: figure.measured for figure in found[other]} for other in others}
    rows = [
        [
            figure.name,
            figure.aim,
            figure.measured,
            "met" if figure.is_met else "MISSED",
            *(by_name[other].get(figure.name, "-") for other in others),
        ]
        for figure in found[ours]
    ]
    return table(["", "aim", ours, "", *others], rows)


def main(args: argparse.Namespace, cores: machine.Cores, say: Callable[[str], None]) -> int:
    """Measure, print, and write every figure to `args.json` when given."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, _FILES), most))
    names = PEERS if args.peers is None else [name for name in args.peers.split(",") if name]
    wanted = peers.select(list(names))
    contenders = [POINTSMAN, *(peer for peer in wanted if peer.path())]
    for peer in wanted:
        if not peer.path():
            say(f"MISSING {peer.name}, left out: {peer.install}")
    bench = Bench(cores, args.quick)
    only = args.only.split(",") if args.only else []
    if unknown := set(only) - OF_ALL.keys() - OURS.keys():
        say(f"no scenario {min(unknown)!r}, there are: {', '.join([*OF_ALL, *OURS])}")
        return 2
    facts = machine.facts() | {peer.name: peer.version() for peer in contenders}
    print("\n".join(f"{name}: {value}" for name, value in facts.items()), flush=True)
    found: Figures = {peer.name: [] for peer in contenders}

    def take(figures: Figures) -> None:
        for name, some in figures.items():
            found[name] += some
        if any(figures.values()):
            print(f"\n{text(figures)}", flush=True)
        if args.json:
            all_ = {name: [asdict(figure) for figure in found[name]] for name in found}
            report.write(args.json, {"facts": facts, "figures": all_})

    uvloop.run(measure(bench, contenders, only, say, take))
    if bench.late_s:
        late_ms = sorted(late_s * 1000 for late_s in bench.late_s)
        middle = late_ms[len(late_ms) // 2]
        print(f"\nThe load itself was {middle:.1f} ms late at p99, at worst {late_ms[-1]:.1f} ms.")
    return 0
