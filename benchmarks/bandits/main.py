"""`python -m benchmarks bandits`: regret beside MABWiser and River, and what weights cost.

Pure arithmetic, no traffic: the figures of regret depend on nothing but the code and the seeds.
Every contender has one setting, its defaults, in every environment.
"""

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from benchmarks import machine, report
from benchmarks.bandits import speed
from benchmarks.bandits.contenders import (
    CONTENDERS,
    MABWISER_THOMPSON,
    OURS,
    require_libraries,
)
from benchmarks.bandits.environments import DELAYS, ENVIRONMENTS, EXPOSURES, ROUND, regret
from benchmarks.bandits.figures import (
    BETTER,
    CPU_MAX_S,
    ERRORS,
    MUST_GOOD,
    ONE_S,
    P95_B2,
    ROUTES,
)
from benchmarks.figures import quantile, table

Case = tuple[str, int]
"""Environment and delay."""


@dataclass(frozen=True, slots=True)
class Found:
    """Regrets of one contender in one case, by seed."""

    regrets: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.regrets)

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return statistics.stdev(self.regrets) / math.sqrt(len(self.regrets))

    @property
    def p95(self) -> float:
        return quantile(sorted(self.regrets), 0.95)

    def show(self) -> str:
        return f"{self.mean:.0f} ± {self.error:.1f}"


Results = dict[Case, dict[str, Found]]


def main(args: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Run all, print all, return 1 if a `must` is missed."""
    started = time.perf_counter()
    facts = machine.facts()
    speeds = speed.measure()
    missed = _print_speed(speeds)
    results: Results = {}
    if not args.speed:
        versions = require_libraries()
        results = _simulate(args, say)
        print(f"\n{EXPOSURES} exposures, weights every {ROUND}; mean regret ± standard error")
        print(f"seeds {args.seeds} (libraries {args.library_seeds}); {versions}\n")
        missed += _print_regret(results) + _print_peers(results)
    print("\n" + "\n".join(f"{name}: {value}" for name, value in facts.items()))
    print(f"took {time.perf_counter() - started:.0f} s")
    if args.json:
        report.write(args.json, _document(facts, speeds, results))
    print("\nall that must be is met" if not missed else f"\nMISSED: {'; '.join(missed)}")
    return 1 if missed else 0


def _simulate(args: argparse.Namespace, say: Callable[[str], None]) -> Results:
    seeds = {
        name: min(args.seeds, args.library_seeds) if name != OURS else args.seeds
        for name in CONTENDERS
    }
    cases = [(environment, delay) for environment in ENVIRONMENTS for delay in DELAYS]
    results: Results = {}
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        runs = {
            (case, name): [pool.submit(_one, name, *case, seed) for seed in range(seeds[name])]
            for case in cases
            for name in CONTENDERS
        }
        for (case, name), futures in runs.items():
            found = Found(tuple(future.result() for future in futures))
            results.setdefault(case, {})[name] = found
            say(f"{case[0]} delay {case[1]} {name}: {found.show()}")
    return results


def _one(name: str, environment: str, delay: int, seed: int) -> float:
    chosen = ENVIRONMENTS[environment]
    return regret(chosen, CONTENDERS[name](chosen.arms, seed), seed, delay)


def _print_speed(speeds: list[speed.Speed]) -> list[str]:
    rows = [[one.case, f"{one.one_s * 1e3:.3f} ms", f"{one.all_s * 1e3:.0f} ms"] for one in speeds]
    print(table(["5 arms", "one route", f"{ROUTES} routes"], rows))
    slowest = max(speeds, key=lambda one: one.all_s)
    missed = []
    if slowest.all_s >= CPU_MAX_S:
        missed.append(f"{ROUTES} routes take {slowest.all_s:.3f} s, must be < {CPU_MAX_S}")
    if slowest.one_s > ONE_S[0]:
        missed.append(f"one recompute takes {slowest.one_s:.4f} s, must be <= {ONE_S[0]}")
    return missed


def _print_regret(results: Results) -> list[str]:
    rows, missed = [], []
    for case, found in results.items():
        ours = found[OURS]
        bounds = MUST_GOOD.get(case)
        if bounds is not None:
            verdict = _verdict(ours.mean, bounds)
            if verdict == "MISSED":
                missed.append(f"{case[0]} delay {case[1]} is {ours.mean:.0f}")
        rows.append(
            [
                f"{case[0]}, delay {case[1]}",
                ours.show(),
                f"{ours.p95:.0f}",
                *(f"{bound:.0f}" for bound in bounds or ()),
                *(() if bounds else ("", "")),
                verdict if bounds else "",
            ]
        )
    p95 = results["b2", 0][OURS].p95
    verdict = _verdict(p95, P95_B2)
    rows.append(["b2, 95th percentile", f"{p95:.0f}", "", *map(str, P95_B2), verdict])
    if verdict == "MISSED":
        missed.append(f"b2's 95th percentile is {p95:.0f}")
    print(table(["regret", "mean", "p95", "must", "good", ""], rows))
    return missed


def _verdict(value: float, bounds: tuple[float, float]) -> str:
    if value > bounds[0]:
        return "MISSED"
    return "good" if value <= bounds[1] else "met"


def _print_peers(results: Results) -> list[str]:
    rows, missed = [], []
    for case, found in results.items():
        verdict = _against(case, found)
        if verdict.startswith("MISSED"):
            missed.append(f"{case[0]} delay {case[1]} beside libraries")
        rows.append(
            [f"{case[0]}, delay {case[1]}", *(one.show() for one in found.values()), verdict]
        )
    print("\n" + table(["beside others", *CONTENDERS, ""], rows))
    return missed


def _against(case: Case, found: dict[str, Found]) -> str:
    """Steady: no worse than the best of the others, within errors. Else: 30 % better than plain
    Thompson."""
    ours = found[OURS]
    if not ENVIRONMENTS[case[0]].is_steady:
        ratio = ours.mean / found[MABWISER_THOMPSON].mean
        return f"{'ok' if ratio <= BETTER else 'MISSED'}: {ratio:.2f} of plain Thompson"
    name, best = min(
        ((name, one) for name, one in found.items() if name != OURS), key=lambda one: one[1].mean
    )
    slack = ERRORS * (best.error**2 + ours.error**2) ** 0.5
    distance = ours.mean - best.mean
    return f"{'ok' if distance <= slack else 'MISSED'}: {distance:+.0f} (± {slack:.0f}) to {name}"


def _document(facts: dict[str, str], speeds: list[speed.Speed], results: Results) -> dict[str, Any]:
    return {
        "facts": facts,
        "speed": {one.case: {"one_s": one.one_s, "all_s": one.all_s} for one in speeds},
        "regret": {
            f"{environment}, delay {delay}": {
                name: [round(value, 3) for value in one.regrets] for name, one in found.items()
            }
            for (environment, delay), found in results.items()
        },
    }
