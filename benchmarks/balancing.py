"""Cost of choosing an endpoint, by algorithm and number: `python -m benchmarks.balancing`.

Each figure is CPU time, the median (min…max) of 7 runs of 20,000 picks after one run of warm-up,
with a few requests in flight on every endpoint. "by weight": every third endpoint weighs 2, the
others 1. "adopt" is the cost of a change of the set of 100, and of the first pick after it.
"observe" is what `peak_ewma` does besides for each answer.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final, get_args

import orjson

from router.config.balance import Balance, BalanceType
from router.data.balance import build
from router.data.balance.base import Picker

_RUNS: Final = 7
_PICKS: Final = 20_000
_ADOPTS: Final = 5
_SIZES: Final = (1, 3, 100)


@dataclass
class _Target:
    """Not slotted, as `data.endpoint.EndpointPool` is not."""

    url: str
    weight: float
    in_flight: int
    latency_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Row:
    balance: str
    what: str
    us: list[float]


def _targets(size: int, is_weighted: bool) -> tuple[_Target, ...]:
    return tuple(
        _Target(f"http://model-{i}:8000", 2.0 if is_weighted and i % 3 == 1 else 1.0, i % 4)
        for i in range(size)
    )


def _picker(name: str, targets: tuple[_Target, ...]) -> Picker[_Target]:
    has_key = name == "ring_hash"
    balance = Balance.model_validate(
        {"type": name} | ({"key": {"header": "x-user-id"}} if has_key else {})
    )
    total = sum(target.in_flight for target in targets)
    weights = [target.weight for target in targets]
    picker: Picker[_Target] = build(balance, weights, Random(1).random, lambda: total)
    picker.adopt(targets)
    if picker.needs_latency:
        for i, target in enumerate(targets):
            picker.observe(target, 0.01 + i / 1e4, 1000.0)
    return picker


def _per_call(action: Callable[[], int]) -> list[float]:
    """Microseconds of CPU of each run; `action` returns how many calls it made."""
    runs: list[float] = []
    for _ in range(_RUNS + 1):
        start = time.process_time()
        calls = action()
        runs.append((time.process_time() - start) / calls * 1e6)
    return runs[1:]


def _picks(name: str, targets: tuple[_Target, ...]) -> list[float]:
    pick, random = _picker(name, targets).pick, Random(2).random
    keys = [b"user-%06d" % i for i in range(_PICKS)] if name == "ring_hash" else [b""] * _PICKS

    def run() -> int:
        for key in keys:
            pick(random, key)
        return _PICKS

    return _per_call(run)


def _adopts(name: str, targets: tuple[_Target, ...]) -> list[float]:
    """One endpoint leaves and comes back."""
    picker, random = _picker(name, targets), Random(3).random

    def run() -> int:
        for _ in range(_ADOPTS):
            for used in (targets[1:], targets):
                picker.adopt(used)
                picker.pick(random, b"user")
        return 2 * _ADOPTS

    return _per_call(run)


def _observes(targets: tuple[_Target, ...]) -> list[float]:
    picker = _picker("peak_ewma", targets)

    def run() -> int:
        for i in range(_PICKS):
            picker.observe(targets[i % len(targets)], 0.01, 1000.0 + i / 1e4)
        return _PICKS

    return _per_call(run)


def _rows() -> Iterator[_Row]:
    for name in get_args(BalanceType):
        for size in _SIZES:
            yield _Row(name, f"{size}", _picks(name, _targets(size, False)))
        largest = _targets(_SIZES[-1], True)
        yield _Row(name, f"{_SIZES[-1]} by weight", _picks(name, largest))
        yield _Row(name, "adopt", _adopts(name, largest))
    yield _Row("peak_ewma", "observe", _observes(_targets(_SIZES[-1], False)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of choosing an endpoint.")
    parser.add_argument("--json", type=Path, help="write the runs here as well")
    arguments = parser.parse_args()
    print(f"{platform.platform()} | Python {platform.python_version()} | {' '.join(sys.orig_argv)}")
    print(f"{'balance':15} {'endpoints':15} {'us':>8}")
    rows = list(_rows())
    for row in rows:
        spread = f"({min(row.us):.2f}…{max(row.us):.2f})"
        print(f"{row.balance:15} {row.what:15} {statistics.median(row.us):8.2f} {spread}")
    if arguments.json:
        document = [{"balance": row.balance, "what": row.what, "us": row.us} for row in rows]
        arguments.json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    main()
