"""How often reports on simulated experiments are wrong, and how soon they are right.

Command: `python -m benchmarks experiments [--seeds N] [--json FILE]`. Only outcomes are simulated
(numpy, a seed each); what judges them is the code of the report, once a look. No traffic: figures
depend on nothing but the code and the seeds. The exit status is 1 when a "must" is missed.

1. False alarms are counted over all looks: one is enough to make an experiment wrong.
2. The bound on them is the level, and two standard errors of as many experiments at that level.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks import machine
from benchmarks.errors import BenchmarkError
from benchmarks.verdicts import Verdict, judged, summary
from router.experiments import mismatch
from router.experiments.estimate import Kind, mean_of
from router.experiments.experiment import ALPHA, Experiment, Kpi, Place
from router.experiments.look import Look, look
from router.experiments.sums import Arm, Stratum, Sums
from router.policies.bandit import BanditOptions

STEP: Final = 100
"""Exposures between looks."""
LOOKS: Final = 200
ROUND: Final = 200
"""Exposures between two versions of a bandit's weights."""
LONG: Final = 100_000
_HERE: Final = Stratum()
_SPLIT_ALPHA: Final = 1.0 / mismatch.FLAG_AT

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Row:
    """A measured figure. `must` and `good` are bounds as text; None: for information."""

    name: str
    measured: str
    must: str | None
    is_met: bool
    good: str | None
    is_good: bool
    values: Mapping[str, float] = field(default_factory=dict)


def _bits(n: int, ones: int) -> Sums:
    return Sums(n, float(ones), float(ones))


def _look(kpi: Kpi, a: Sums, b: Sums, share: float) -> Look:
    """What the report works on, of an experiment with constant weights."""
    sums = {kpi.name: {Arm("a"): a, Arm("b"): b}}
    weights = {_HERE: {"a": 1.0 - share, "b": share}}
    experiment = Experiment("route", "ab", ("a", "b"), "a", (kpi,), weights, sums, {})
    return look(experiment, kpi, Place(kpi.name, None, "b"), ALPHA)


def _is_shown(one: Look) -> bool:
    return one.change is not None and one.seen.p <= ALPHA


# A/A and A/B with constant weights


def _outcomes(
    rates: tuple[float, float], share: float, looks: int, seeds: int, seed: int
) -> tuple[Counts, Counts, Counts, Counts]:
    """Exposures and ones of both variants, summed up to each look: shape (seeds, looks)."""
    generator = np.random.default_rng(seed)
    b = generator.binomial(STEP, share, (seeds, looks))
    a = STEP - b
    ones_a, ones_b = generator.binomial(a, rates[0]), generator.binomial(b, rates[1])
    na, sa, nb, sb = (np.cumsum(counts, axis=1) for counts in (a, ones_a, b, ones_b))
    return na, sa, nb, sb


def found_at(
    kpi: Kpi, rates: tuple[float, float], share: float, looks: int, seeds: int
) -> list[float]:
    """Exposures after which a difference was first called shown, an experiment each; inf: never."""
    outcomes = [table.tolist() for table in _outcomes(rates, share, looks, seeds, seed=1)]
    found = []
    for na, sa, nb, sb in zip(*outcomes, strict=True):
        first = math.inf
        for i in range(looks):
            if _is_shown(_look(kpi, _bits(na[i], sa[i]), _bits(nb[i], sb[i]), share)):
                first = float((i + 1) * STEP)
                break
        found.append(first)
    return found


def _paid(seeds: int) -> list[float]:
    """A/A of amounts: one in ten pays, lognormal with a long tail. As `found_at`."""
    generator = np.random.default_rng(2)
    kpi = Kpi("revenue", Kind.NUMERIC)
    found = []
    for _ in range(seeds):
        n = LOOKS * STEP
        amounts = generator.lognormal(3.0, 1.0, n) * (generator.random(n) < 0.1)
        is_b = generator.random(n) < 0.5
        tables = [
            np.cumsum(values)[STEP - 1 :: STEP].tolist()
            for mask in (~is_b, is_b)
            for values in (mask.astype(np.int64), mask * amounts, mask * amounts**2)
        ]
        looks = zip(*tables, strict=True)
        is_found = any(_is_shown(_look(kpi, Sums(*row[:3]), Sums(*row[3:]), 0.5)) for row in looks)
        found.append(0.0 if is_found else math.inf)
    return found


# weights set by a bandit


@dataclass(frozen=True, slots=True)
class _Course:
    """One simulated experiment whose weights a bandit set."""

    is_shown: bool
    is_missed: bool
    """Some interval did not contain the true difference."""
    loser_pooled: float
    loser_weighted: float


def bandit_course(rates: tuple[float, float], seed: int) -> _Course:
    """20,000 exposures, new weights every `ROUND`, a look after each."""
    options = BanditOptions.model_validate(
        {"type": "bandit", "variants": [{"backend": "a"}, {"backend": "b"}]}
    )
    learner = options.learner()
    if learner is None:
        raise BenchmarkError("a bandit without a learner")
    generator = np.random.default_rng(seed)
    kpi = Kpi("click", effect=0.02)
    weights: dict[Stratum, dict[str, float]] = {}
    sums: dict[Arm, Sums] = {}
    is_shown = is_missed = False
    for version in range(LOOKS * STEP // ROUND):
        stratum = Stratum("", version)
        weights[stratum] = learner.weights()[""]
        nb = int(generator.binomial(ROUND, weights[stratum]["b"]))
        for name, n, rate in (("a", ROUND - nb, rates[0]), ("b", nb, rates[1])):
            ones = int(generator.binomial(n, rate))
            sums[Arm(name, stratum)] = _bits(n, ones)
            learner.observe("", name, n, float(ones), float(ones))
        experiment = Experiment(
            "route", "bandit", ("a", "b"), "a", (kpi,), weights, {"click": sums}, {},
            is_learned=True,
        )  # fmt: skip
        one = look(experiment, kpi, Place("click", None, "b"), ALPHA)
        is_shown |= _is_shown(one)
        if one.bounds is not None:
            is_missed |= not one.bounds[0] <= rates[1] - rates[0] <= one.bounds[1]
    loser = "a" if rates[0] <= rates[1] else "b"
    results = experiment.results("click", loser, None)
    total = [results[s].total for s in results], [results[s].n for s in results]
    mean = mean_of(Kind.BINARY, results, experiment.shares(loser, None))
    return _Course(is_shown, is_missed, sum(total[0]) / sum(total[1]), mean.value)


# the sample ratio


def _alarmed(shares: Sequence[Sequence[float]], drawn: Sequence[float] | None, seed: int) -> bool:
    """Whether the alarm is raised in 200 looks. `shares` take turns, a version every 10 looks;
    `drawn` are what really is drawn from, by default the same."""
    generator = np.random.default_rng(seed)
    names = [f"v{i}" for i in range(len(shares[0]))]
    done: list[mismatch.Split] = []
    for start in range(0, LOOKS, 10):
        current = shares[start // 10 % len(shares)]
        counts = np.cumsum(generator.multinomial(STEP, drawn or current, 10), axis=0)
        split = None
        for row in counts.tolist():
            split = mismatch.Split(
                dict(zip(names, row, strict=True)), dict(zip(names, current, strict=True))
            )
            if mismatch.e_value([*done, split]) >= mismatch.FLAG_AT:
                return True
        if split is not None:
            done.append(split)
    return False


# rows


def _false(name: str, wrong: int, seeds: int, level: float) -> Row:
    bound = level + 2.0 * math.sqrt(level * (1.0 - level) / seeds)
    rate = wrong / seeds
    return Row(
        name,
        f"{rate:.2%} of {seeds:,}",
        f"<= {level:.0%} + 2 se = {bound:.2%}",
        rate <= bound,
        None,
        True,
        {"wrong": wrong, "experiments": seeds},
    )


def _false_alarms(seeds: int) -> Iterator[Row]:
    plans = (
        ("A/A 10 %, effect 1 point declared", Kpi("click", effect=0.01), 0.10, 0.5),
        ("A/A 10 %, nothing declared", Kpi("click"), 0.10, 0.5),
        ("A/A 1 %, nothing declared", Kpi("click"), 0.01, 0.5),
        ("A/A 1 %, split 90 to 10", Kpi("click"), 0.01, 0.1),
    )
    for name, kpi, rate, share in plans:
        found = found_at(kpi, (rate, rate), share, LOOKS, seeds)
        yield _false(name, sum(math.isfinite(at) for at in found), seeds, ALPHA)
    found = _paid(seeds // 4)
    wrong = sum(math.isfinite(at) for at in found)
    yield _false("A/A of amounts, 1 in 10 pays", wrong, seeds // 4, ALPHA)


def _detection(seeds: int) -> Iterator[Row]:
    """A/B 10 % against 11 %."""
    found = found_at(Kpi("click", effect=0.01), (0.10, 0.11), 0.5, LONG // STEP, seeds)
    for limit, must, good in ((20_000, 0.20, 0.31), (LONG, 0.95, 0.99)):
        share = sum(at <= limit for at in found) / seeds
        yield Row(
            f"A/B 10 % to 11 %, found by {limit:,}",
            f"{share:.1%} of {seeds:,}",
            f">= {must:.0%}",
            share >= must,
            f">= {good:.0%}",
            share >= good,
            {"found": share * seeds, "experiments": seeds},
        )
    median = statistics.median(found)
    yield Row(
        "A/B 10 % to 11 %, median exposures",
        f"{median:,.0f}",
        "<= 42,000",
        median <= 42_000,
        "<= 30,000",
        median <= 30_000,
        {"median": median, "experiments": seeds},
    )


def _bandits(seeds: int) -> Iterator[Row]:
    courses = [bandit_course((0.10, 0.10), seed) for seed in range(seeds)]
    yield _false("A/A under bandit weights", sum(c.is_shown for c in courses), seeds, ALPHA)
    missed = sum(c.is_missed for c in courses)
    yield _false("A/A under bandit weights, intervals that miss", missed, seeds, ALPHA)
    courses = [bandit_course((0.10, 0.12), seed) for seed in range(seeds)]
    missed = sum(c.is_missed for c in courses)
    yield _false("10 % and 12 % under bandit weights, intervals that miss", missed, seeds, ALPHA)
    pooled = statistics.fmean(c.loser_pooled for c in courses)
    weighted = statistics.fmean(c.loser_weighted for c in courses)
    found = sum(c.is_shown for c in courses)
    yield Row(
        "10 % and 12 % under bandit weights: the loser's plain and weighted mean; shown",
        f"{pooled:.2%}, {weighted:.2%}; {found / seeds:.0%}",
        None,
        True,
        None,
        True,
        {"pooled": pooled, "weighted": weighted, "found": found, "experiments": seeds},
    )


def _splits(seeds: int) -> Iterator[Row]:
    plans: tuple[tuple[str, Sequence[Sequence[float]]], ...] = (
        ("2 variants", [(0.5, 0.5)]),
        ("3 variants, 50/30/20", [(0.5, 0.3, 0.2)]),
        ("weights that change", [(0.5, 0.5), (0.8, 0.2), (0.3, 0.7)]),
    )
    for name, shares in plans:
        wrong = sum(_alarmed(shares, None, seed) for seed in range(seeds))
        yield _false(f"sample-ratio alarm, no mismatch, {name}", wrong, seeds, _SPLIT_ALPHA)
    few = seeds // 4
    right = sum(_alarmed([(0.5, 0.5)], (0.53, 0.47), seed) for seed in range(few))
    yield Row(
        "sample-ratio alarm, 53 to 47 instead of 50 to 50, by 20,000",
        f"{right / few:.0%} of {few:,}",
        None,
        True,
        None,
        True,
        {"found": right, "experiments": few},
    )


def rows(seeds: int) -> Iterator[Row]:
    """The table, each row as soon as it is known. A bandit's experiments are a fifth as many."""
    parts: Sequence[tuple[Callable[[int], Iterator[Row]], int]] = (
        (_false_alarms, seeds),
        (_detection, seeds),
        (_splits, seeds),
        (_bandits, seeds // 5),
    )
    for part, n in parts:
        yield from part(n)


def main(args: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Print the table; 1 when a must is missed."""
    started = time.perf_counter()
    done: list[Row] = []
    for row in rows(args.seeds):
        done.append(row)
        mark = "" if row.must is None else ("met" if row.is_met else "MISSED")
        good = "" if row.good is None else f"; good {row.good}: {'yes' if row.is_good else 'no'}"
        print(f"{mark:<7} {row.name}: {row.measured} (must {row.must or 'none'}{good})", flush=True)
    judgements = [
        Verdict(row.name, judged(row.is_met), row.measured, row.must)
        for row in done
        if row.must is not None
    ]
    print(summary(judgements))
    say(f"took {time.perf_counter() - started:.0f} s")
    if args.json:
        document = {"facts": machine.facts(), "rows": [asdict(row) for row in done]}
        args.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return 0 if all(row.is_met for row in done) else 1
