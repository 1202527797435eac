"""Experiments to report on, made from counts."""

from collections.abc import Mapping
from typing import Any

from router.experiments.experiment import Experiment, Exposed, Kpi
from router.experiments.sums import Arm, Stratum, Sums

HERE = Stratum()
CLICK = Kpi("click", effect=0.01)


def bits(n: int, ones: int) -> Sums:
    """Sums of zeros and ones."""
    return Sums(n, float(ones), float(ones))


def of(*values: float) -> Sums:
    """Sums of values."""
    return Sums(len(values), sum(values), sum(v * v for v in values))


def spread(n: int, mean: float, variance: float) -> Sums:
    """Sums of `n` values with this mean and variance."""
    return Sums(n, n * mean, variance * (n - 1) + n * mean * mean)


def experiment(
    counts: Mapping[str, Sums] | None = None,
    kpi: Kpi = CLICK,
    **changes: Any,
) -> Experiment:
    """One KPI, one stratum, equal weights, everybody answered; `changes` replace fields."""
    counts = {"a": bits(1000, 100), "b": bits(1000, 110)} if counts is None else counts
    share = 1.0 / len(counts)
    given: dict[str, Any] = {
        "route": "animals",
        "policy": "ab",
        "variants": tuple(counts),
        "control": "a",
        "kpis": (kpi,),
        "weights": {HERE: dict.fromkeys(counts, share)},
        "sums": {kpi.name: {Arm(name): sums for name, sums in counts.items()}},
        "exposed": {Arm(name): Exposed(sums.n, sums.n) for name, sums in counts.items()},
        "seconds": 3600.0,
    }
    return Experiment(**given | changes)
