"""`reload`: a config of many routes is rewritten again and again under load.

1. The same open loop runs without and with reloads, alternately, on one started router.
2. A reload rewrites the file (write beside, rename over) and changes every route's weight; the
   next begins when the log says that it is in use, so they follow each other at once. (To ask
   `/metrics` again and again would keep control and worker busy, and so be part of the load.)
3. This is done twice. *Together*: control and worker share one core, which is harder than in use,
   for what control computes the worker has to wait for. *Apart*: control shares the core of the
   load instead, as on a machine of two cores; then it makes the load late, which is shown.
"""

import argparse
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import compare, machine, openloop, probe, report, workload
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Spread, short, table
from benchmarks.peers import POINTSMAN
from benchmarks.procs import Running, running
from benchmarks.verdicts import Verdict, judged, summary

_CONNECTIONS: Final = 32
_SLOWEST_MAX_MS: Final = 100.0
_POLL_S: Final = 0.05
_RELOAD_WITHIN_S: Final = 30.0
_RELOADED: Final = re.compile(rb'"event": ?"reloaded"')
_REQUEST: Final = """\
POST /v2/models/m{route}/infer HTTP/1.1
Host: models.example
Content-Type: application/json
X-User-Id: user-@USER@

{{"id":"b7a0","inputs":[{{"name":"image","shape":[1,2],"datatype":"FP32","data":[0.1,0.2]}}]}}
"""


TOGETHER: Final = "together"
APART: Final = "apart"


@dataclass(frozen=True, slots=True)
class Pair:
    """One round: the load without reloads, the same with, and how many reloads there were.

    `arrangement` of control and worker: on one core, or on two.
    """

    arrangement: str
    quiet: openloop.OpenLoop
    reloading: openloop.OpenLoop
    reloads: int


def config_text(routes: int, percent: int, places: workload.Places) -> str:
    """A config with that many canary routes, each of weight `percent`."""
    head = f"""\
listen: 127.0.0.1:{places.port}
admin: {{listen: "127.0.0.1:{places.admin_port}"}}
workers: 1
state: "memory:"
logging: {{format: json}}
backends:
  v1: {{endpoints: ["http://127.0.0.1:{places.v1_port}"]}}
  v2: {{endpoints: ["http://127.0.0.1:{places.v2_port}"]}}
routes:
"""
    options = f"stable: v1, canary: v2, weight: {percent}%, sticky: {{header: x-user-id}}"
    policy = f"{{type: canary, {options}}}"
    return head + "".join(
        f"  - {{name: m{route}, match: {{path: /v2/models/m{route}/}}, policy: {policy}}}\n"
        for route in range(routes)
    )


def run(args: argparse.Namespace, cores: machine.Cores, say: Callable[[str], None]) -> list[Pair]:
    """Measure `args.rounds` pairs of each arrangement.

    Raises:
        BenchmarkError: the router did not start, or a reload did not come through.
    """
    return [
        pair
        for arrangement, control_core in ((TOGETHER, cores.proxy), (APART, cores.load))
        for pair in _run_one(args, cores, say, arrangement, control_core)
    ]


def main(args: argparse.Namespace, cores: machine.Cores, say: Callable[[str], None]) -> int:
    """Measure, print, and write the samples to `args.json` when given."""
    facts = machine.facts() | {POINTSMAN.name: POINTSMAN.version()}
    pairs = run(args, cores, say)
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    print(
        f"\n{args.routes} routes, open loop of {args.rate}/s for {args.seconds} s, "
        f"{args.rounds} rounds. Median (min…max).\n"
    )
    print(_table(pairs))
    found = [verdict(pairs, arrangement) for arrangement in (TOGETHER, APART)]
    print("\n" + "\n".join([*(v.line() for v in found), "", summary(found)]))
    if json_file := args.json:
        report.write(json_file, {"facts": facts, "pairs": [asdict(pair) for pair in pairs]})
    return 0


def verdict(pairs: Sequence[Pair], arrangement: str) -> Verdict:
    """No request failed, and none was slower than the bound, in any round."""
    chosen = [pair for pair in pairs if pair.arrangement == arrangement]
    failed = sum(pair.reloading.failed for pair in chosen)
    slowest_ms = max(pair.reloading.max_us for pair in chosen) / 1000
    quiet_ms = max(pair.quiet.max_us for pair in chosen) / 1000
    return Verdict(
        f"reloads, control and worker {arrangement}",
        judged(failed == 0 and slowest_ms <= _SLOWEST_MAX_MS),
        f"{failed} failed, slowest {slowest_ms:.1f} ms",
        f"0 failed, <= {_SLOWEST_MAX_MS:g} ms",
        f"without reloads, the slowest took {quiet_ms:.1f} ms",
    )


def _run_one(
    args: argparse.Namespace,
    cores: machine.Cores,
    say: Callable[[str], None],
    arrangement: str,
    control_core: int,
) -> Iterator[Pair]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        directory.chmod(0o755)  # nginx's worker may run as another user
        port, admin_port, v1_port, v2_port = workload.free_ports(4)
        places = workload.Places(directory, port, admin_port, v1_port, v2_port)
        origin_of = workload.load("json_canary")
        compare.start_origin(stack, origin_of, directory, (v1_port, v2_port), cores.load)
        reloader = _Reloader(directory / "pointsman.yaml", args.routes, places)
        reloader.write()
        command = [places.fill(argument) for argument in POINTSMAN.command()]
        router = stack.enter_context(
            running(POINTSMAN.name, command, log=directory / "log", core=cores.proxy)
        )
        requests = _requests(args.routes)
        file = workload.write_requests(requests, directory / "requests.bin")
        probe.wait_ready(port, requests[0], router)
        router.pin(control_core)
        load = partial(
            openloop.run,
            port,
            file,
            rate=args.rate,
            seconds=args.seconds,
            connections=_CONNECTIONS,
            core=cores.load,
        )
        load()  # warm-up
        for number in range(args.rounds):
            say(f"{arrangement}: round {number + 1} of {args.rounds}")
            yield _pair(arrangement, load, reloader, router)


class _Reloader:
    """Rewrites the config, and sees when it is in use."""

    def __init__(self, path: Path, routes: int, places: workload.Places) -> None:
        self._path = path
        self._routes = routes
        self._places = places
        self._written = 0

    def write(self) -> None:
        """Replace the file by one that differs in every route."""
        self._written += 1
        beside = self._path.with_suffix(".new")
        beside.write_text(config_text(self._routes, 10 + self._written % 2, self._places))
        beside.rename(self._path)

    def reload(self, router: Running) -> None:
        """Replace the file, wait until the new generation is in use.

        Raises:
            BenchmarkError: it is not within a while.
        """
        before = _reloads(router)
        self.write()
        deadline_s = time.monotonic() + _RELOAD_WITHIN_S
        while _reloads(router) == before:
            router.require_alive()
            if time.monotonic() > deadline_s:
                log = router.log.read_text(errors="replace")[-2000:]
                raise BenchmarkError(f"no reload within {_RELOAD_WITHIN_S:.0f} s:\n{log}")
            time.sleep(_POLL_S)


def _reloads(router: Running) -> int:
    return len(_RELOADED.findall(router.log.read_bytes()))


def _pair(
    arrangement: str, load: Callable[[], openloop.OpenLoop], reloader: _Reloader, router: Running
) -> Pair:
    quiet = load()
    reloads = 0
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load)
        while not loading.done():
            reloader.reload(router)
            reloads += 1
    return Pair(arrangement, quiet, loading.result(), reloads)


def _requests(routes: int) -> list[bytes]:
    return [
        request
        for route in range(routes)
        for request in workload.build_requests(_REQUEST.format(route=route), 4)
    ]


def _table(pairs: list[Pair]) -> str:
    def row(name: str, loops: list[openloop.OpenLoop]) -> list[str]:
        return [
            name,
            str(sum(loop.failed for loop in loops)),
            Spread.of(loop.p50_us for loop in loops).show(short),
            Spread.of(loop.p99_us for loop in loops).show(short),
            Spread.of(loop.p999_us for loop in loops).show(short),
            Spread.of(loop.max_us for loop in loops).show(short),
            Spread.of(loop.late_max_us for loop in loops).show(short),
        ]

    rows = []
    for arrangement in (TOGETHER, APART):
        chosen = [pair for pair in pairs if pair.arrangement == arrangement]
        reloads = sum(pair.reloads for pair in chosen)
        rows.append(row(f"{arrangement}, no reload", [pair.quiet for pair in chosen]))
        rows.append(row(f"{arrangement}, {reloads} reloads", [pair.reloading for pair in chosen]))
    quantiles = ["p50 µs", "p99 µs", "p99.9 µs", "slowest µs"]
    return table(["open loop", "failed", *quantiles, "load late, max µs"], rows)
