"""What is measured, what it must be and what would be good, and how runs become a figure."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.canary.runs import Ramp, Run
from benchmarks.canary.traffic import Scenario
from benchmarks.figures import quantile

NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Setting:
    """One simulation: a scenario, how many looks, and how many seconds came before."""

    name: str
    scenario: Scenario
    looks: int = 600
    before: int = 0


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that must be at most (`is_upper`) or at least `must`, better `good`."""

    words: str
    setting: str
    measure: Callable[[Sequence[Run]], float]
    must: float | None
    good: float | None = None
    is_upper: bool = True
    is_share: bool = True

    def meets(self, value: float, bound: float | None) -> bool:
        if bound is None:
            return True
        return value <= bound if self.is_upper else value >= bound

    def show(self, value: float | None) -> str:
        if value is None:
            return ""
        if value == NEVER:
            return "never"
        return f"{value * 100:.1f} %" if self.is_share else f"{value:,.0f}"


def failed(runs: Sequence[Run]) -> float:
    return statistics.fmean(run.failed_s is not None for run in runs)


def promoted(runs: Sequence[Run]) -> float:
    return statistics.fmean(run.passed_s is not None for run in runs)


def _or_never(values: Sequence[int | None]) -> list[float]:
    return sorted(NEVER if value is None else float(value) for value in values)


def median_requests(runs: Sequence[Run]) -> float:
    return quantile(_or_never([run.failed_requests for run in runs]), 0.5)


def p90_requests(runs: Sequence[Run]) -> float:
    return quantile(_or_never([run.failed_requests for run in runs]), 0.9)


def median_seconds(runs: Sequence[Run]) -> float:
    return quantile(_or_never([run.failed_s for run in runs]), 0.5)


def median_promotion(runs: Sequence[Run]) -> float:
    return quantile(_or_never([run.passed_requests for run in runs]), 0.5)


SETTINGS: Final = (
    Setting("equal", Scenario()),
    Setting("5 %", Scenario(new_errors=0.05)),
    Setting("2 %", Scenario(new_errors=0.02)),
    Setting("latency equal", Scenario(sigma=1.0), looks=300),
    Setting("latency x1.5", Scenario(slower=1.5), looks=300),
    Setting("latency x1.3", Scenario(slower=1.3), looks=300),
    Setting("latency x1.5, wide", Scenario(slower=1.5, sigma=1.0), looks=300),
    Setting("bursts", Scenario(is_bursty=True), before=60),
    Setting("bursts, no past", Scenario(is_bursty=True)),
)


def _count(
    words: str,
    setting: str,
    measure: Callable[[Sequence[Run]], float],
    must: float | None,
    good: float | None = None,
) -> Figure:
    return Figure(words, setting, measure, must, good, is_share=False)


FIGURES: Final = (
    Figure("1 % errors against 1 %: false rollback in 600 looks", "equal", failed, 0.05, 0.01),
    Figure("canary 5 %: rolled back", "5 %", failed, 1.0, is_upper=False),
    _count("canary 5 %: median canary requests until then", "5 %", median_requests, 250, 170),
    _count("canary 5 %: 90th percentile of them", "5 %", p90_requests, 500, 360),
    Figure("canary 2 %: rolled back within 600 s", "2 %", failed, 0.99, is_upper=False),
    _count("canary 2 %: median canary requests until then", "2 %", median_requests, 4000, 1700),
    Figure("equal canary: promoted in 600 looks", "equal", promoted, None),
    _count(
        "equal canary: median canary requests until then", "equal", median_promotion, 2500, 1300
    ),
    Figure("canary at exactly 2x: promoted", "2 %", promoted, 0.05),
    Figure("latency equal: false rollback in 300 s", "latency equal", failed, 0.05, 0.02),
    _count("latency x1.5: median seconds to roll back", "latency x1.5", median_seconds, 30, 13),
    _count("latency x1.5, wide: the same", "latency x1.5, wide", median_seconds, None),
    _count("latency x1.3: median seconds to roll back", "latency x1.3", median_seconds, None),
    Figure("bursts, equal rates: false rollback", "bursts", failed, 0.05, 0.01),
    Figure("bursts, nothing known before: the same", "bursts, no past", failed, None),
)
"""The rows of the requirements; those without a `must` are ours, for information."""


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Whole rollouts: a scenario, and the phase in which at least `must` of them are to end."""

    name: str
    scenario: Scenario
    phase: str
    must: float

    def share(self, ramps: Sequence[Ramp]) -> float:
        return statistics.fmean(ramp.phase == self.phase for ramp in ramps)


ROLLOUTS: Final = (
    Rollouts("equal", Scenario(), "promoted", 0.99),
    Rollouts("5 % errors", Scenario(new_errors=0.05), "rolled_back", 1.0),
    Rollouts("slower by 30 %", Scenario(slower=1.3), "rolled_back", 1.0),
)
