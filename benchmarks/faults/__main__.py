"""Figures under faults: a router on loopback, endpoints and clients that misbehave.

Prints a table of aims and what was measured. The worst of all repetitions counts, not the median.
"""

import argparse
import gc
import resource
import shlex
import sys
from collections.abc import Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import machine, report
from benchmarks.errors import BenchmarkError
from benchmarks.faults import aborts, bodies, crowds, failures
from benchmarks.faults.rig import Figure
from benchmarks.figures import table

_FILES = 24_000
"""File descriptors for 10,000 clients, in this program and in the router."""


def _measurements(is_quick: bool) -> dict[str, Coroutine[Any, Any, list[Figure]]]:
    few = is_quick
    return {
        "stale": failures.stale(300),
        "hang": failures.hang(2 if few else 5),
        "recovery": failures.recovery(2 if few else 5),
        "gone": failures.client_gone(5 if few else 50),
        "slowloris": crowds.slowloris(1000),
        "keep-alive": crowds.keep_alive(1000),
        "idle": crowds.idle(5000),
        "idle-10000": crowds.idle(1000 if few else 10_000),
        "stalled-reader": bodies.stalled_reader(2 if few else 10),
        "stalled-endpoint": bodies.stalled_endpoint(2 if few else 10),
        "endless": bodies.endless(),
        "events": bodies.events(200 if few else 2000),
        "bodies": bodies.bodies(3 if few else 10),
        "leak": aborts.leak(2000 if few else 100_000),
    }


async def _measure(is_quick: bool, only: list[str]) -> list[Figure]:
    figures: list[Figure] = []
    for name, measurement in _measurements(is_quick).items():
        if only and name not in only:
            measurement.close()
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        gc.collect()
        figures += await measurement
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: only a look")
    parser.add_argument("--only", default="", metavar="NAMES", help="some, with commas")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    args = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, _FILES), most))
    only = args.only.split(",") if args.only else []
    try:
        figures = uvloop.run(_measure(args.quick, only))
    except BenchmarkError as error:
        print(f"benchmark stopped: {error}", file=sys.stderr)
        return 1
    command = shlex.join(["python", "-m", "benchmarks.faults", *sys.argv[1:]])
    facts = machine.facts() | {"command": command}
    rows = [[f.name, f.aim, f.measured, "met" if f.is_met else "MISSED"] for f in figures]
    print("\n".join(f"{name}: {value}" for name, value in facts.items()), end="\n\n")
    print(table(["", "aim", "measured", ""], rows))
    if args.json:
        report.write(args.json, {"facts": facts, "figures": [asdict(f) for f in figures]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
