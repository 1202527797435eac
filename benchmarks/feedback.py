"""`feedback`: how many items of feedback a second control takes in, on one core.

Everything that control does with a posted body is measured: reading, verifying receipts, counting
once, writing (SQLite on a file with every batch on the disk, or Redis), feeding the learner, and
the answer. What the listener does (a worker passes the body on) is not. Receipts are made before.
"""

import argparse
import asyncio
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import orjson

from benchmarks import machine, report
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Spread, table
from benchmarks.procs import running
from benchmarks.verdicts import Verdict, judged, summary
from benchmarks.workload import free_ports
from router.config import load_text
from router.control.feedback import Feedback
from router.control.learning import Learning
from router.control.state import StateHolder
from router.receipts import Signer, names_of, unit_digest

_BATCH: Final = 1000
_BATCHES: Final = 20
_MUST_PER_S: Final = 10_000
_NOW_S: Final = 1_700_000_000
_UNITS: Final = 5000


@dataclass(frozen=True, slots=True)
class Round:
    """One round: items a second by the clock, and per second of control's own CPU."""

    case: str
    per_s: float
    per_cpu_s: float


def main(args: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Measure, print, and write the samples to `args.json` when given."""
    facts = machine.facts()
    everywhere = os.sched_getaffinity(0)
    rounds: list[Round] = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        for number in range(args.rounds):
            for case, is_sticky, url in _cases(stack, directory, number):
                say(f"round {number + 1} of {args.rounds}: {case}")
                os.sched_setaffinity(0, {max(everywhere)})  # Redis, if any, runs on another
                rounds.append(asyncio.run(_round(case, is_sticky, url)))
                os.sched_setaffinity(0, everywhere)
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    print(f"\n{_BATCHES} batches of {_BATCH} items, {args.rounds} rounds. Median (min…max).\n")
    cases = list(dict.fromkeys(one.case for one in rounds))
    rows = [
        [
            case,
            Spread.of(r.per_s for r in rounds if r.case == case).show(lambda x: f"{x:,.0f}"),
            Spread.of(r.per_cpu_s for r in rounds if r.case == case).show(lambda x: f"{x:,.0f}"),
        ]
        for case in cases
    ]
    print(table(["store, what is counted", "items/s", "items per CPU second"], rows))
    found = [_verdict(rounds, case) for case in cases]
    print("\n" + "\n".join([*(v.line() for v in found), "", summary(found)]))
    if args.json:
        report.write(args.json, {"facts": facts, "rounds": [asdict(one) for one in rounds]})
    return 0


def _verdict(rounds: list[Round], case: str) -> Verdict:
    least = min(one.per_s for one in rounds if one.case == case)
    return Verdict(
        f"feedback, {case}",
        judged(least >= _MUST_PER_S),
        f"{least:,.0f} items/s in the slowest round",
        f">= {_MUST_PER_S:,}",
        "",
    )


def _cases(stack: ExitStack, directory: Path, number: int) -> list[tuple[str, bool, str]]:
    cases = [
        ("SQLite, requests", False, f"sqlite://{directory}/requests{number}.db"),
        ("SQLite, units", True, f"sqlite://{directory}/units{number}.db"),
    ]
    if shutil.which("redis-server") is not None:
        port = _redis(stack, directory, number)
        cases.append(("Redis, requests", False, f"redis://127.0.0.1:{port}/0"))
        cases.append(("Redis, units", True, f"redis://127.0.0.1:{port}/1"))
    return cases


def _redis(stack: ExitStack, directory: Path, number: int) -> int:
    (port,) = free_ports(1)
    command = [
        *("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)),
        *("--save", "", "--appendonly", "no", "--loglevel", "warning"),
    ]
    log = directory / f"redis{number}.log"
    stack.enter_context(running("redis", command, log=log, core=None))
    return port


def _config(is_sticky: bool, url: str) -> Any:
    policy: dict[str, Any] = {
        "type": "bandit",
        "variants": [{"backend": "v1"}, {"backend": "v2"}],
        "reward": "click",
    }
    if is_sticky:
        policy["sticky"] = {"header": "x-user"}
    document = {
        "state": url,
        "backends": {v: {"endpoints": ["http://127.0.0.1:1"]} for v in ("v1", "v2")},
        "routes": [{"name": "shop", "policy": policy, "kpis": {"click": {"type": "binary"}}}],
        "feedback": {"rate": 1_000_000},
    }
    return load_text(orjson.dumps(document), "feedback", {}).config


async def _round(case: str, is_sticky: bool, url: str) -> Round:
    config, state = _config(is_sticky, url), StateHolder()
    learning = Learning(lambda message: None, lambda: _NOW_S, state)
    await _until_open(learning, config)
    feedback = Feedback(
        learning, lambda: config.feedback, lambda: _NOW_S, lambda route, result: None
    )
    bodies = _bodies(learning.receipt_key, is_sticky)
    await feedback.answer("application/json", bodies.pop())  # warm-up
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    for body in bodies:
        answer = await feedback.answer("application/json", body)
        if json.loads(answer.body)["accepted"] != _BATCH:
            raise BenchmarkError(f"not everything was accepted: {answer.body[:300]}")
    took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    await learning.close()
    await state.close()
    return Round(case, _BATCH * _BATCHES / took_s, _BATCH * _BATCHES / cpu_s)


async def _until_open(learning: Learning, config: Any) -> None:
    deadline_s = time.monotonic() + 10.0
    while True:
        try:
            learning.adopt(await learning.build(config))
            return
        except Exception as error:  # Redis is starting
            if time.monotonic() > deadline_s:
                raise BenchmarkError(f"the store does not open: {error}") from error
            await asyncio.sleep(0.05)


def _bodies(key: str, is_sticky: bool) -> list[bytes]:
    """`_BATCHES` + 1 bodies of items that all count."""
    signer, numbers = Signer(bytes.fromhex(key)), count(1)
    names = [names_of("shop", variant) for variant in ("v1", "v2")]
    run = os.urandom(4)

    def item() -> dict[str, Any]:
        number = next(numbers)
        unit = unit_digest(b"%d" % (number % _UNITS)) if is_sticky else bytes(8)
        nonce = run + number.to_bytes(4, "big")
        token = signer.issue(names[number % 2], 0.5, _NOW_S - 60, nonce, 1, unit)
        return {"receipt": token.decode(), "reward": number % 3 == 0}

    return [orjson.dumps([item() for _ in range(_BATCH)]) for _ in range(_BATCHES + 1)]
