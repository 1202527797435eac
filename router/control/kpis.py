"""What is counted of each route: its KPIs, as control needs them. Pure.

A route is a *subject* when it learns or has KPIs. The reward of a bandit that is not among the
declared KPIs is one by itself: a number from 0 to 1, posted as feedback.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from router.config.model import Config, Feedback, Route
from router.control.counts import Cohort, Silences
from router.experiments.estimate import Kind
from router.experiments.experiment import Goal

SLICES: Final = 10
"""Stretches of exposures in a window; one matures when it is over and the window after it too."""
SLICE_MAX_S: Final = 60
DEFAULT_REWARD: Final = "reward"


@dataclass(frozen=True, slots=True)
class Kpi:
    """One KPI. `window_s`: how long after an exposure its feedback counts; `absent`: what silence
    counts as then, None: it does not count. `effect` and `planned` are of the report."""

    name: str
    kind: Kind
    goal: Goal
    bounds: tuple[float, float] | None
    window_s: float
    absent: float | None
    is_feedback: bool
    is_guardrail: bool = False
    effect: float | None = None
    planned: int | None = None
    is_reward: bool = False

    def counted(self, value: float) -> float:
        """A value as it enters sums: of a lognormal KPI its logarithm."""
        return math.log(value) if self.kind is Kind.LOGNORMAL else value

    def cohort(self, at_s: float) -> Cohort | None:
        """What an exposure at `at_s` counts with; None: by itself, when feedback comes."""
        if self.absent is None or not self.is_feedback:
            return None
        slice_s = min(SLICE_MAX_S, max(1, int(self.window_s / SLICES)))
        end_s = (int(at_s) // slice_s + 1) * slice_s
        return Cohort(end_s + math.ceil(self.window_s), self.counted(self.absent))


@dataclass(frozen=True, slots=True)
class Subject:
    """A route of which something is counted."""

    route: str
    policy: str
    variants: tuple[str, ...]
    kpis: Mapping[str, Kpi]
    reward: str
    """The KPI that the learner is fed with; empty without a learner."""
    is_sticky: bool

    @property
    def silences(self) -> Silences:
        """What the silence of a new unit counts as, by KPI."""
        return tuple(
            (kpi.name, kpi.counted(kpi.absent))
            for kpi in self.kpis.values()
            if kpi.absent is not None and kpi.is_feedback
        )

    @property
    def named(self) -> str:
        """The KPI that `reward` in feedback means: the learner's, or the only one there is."""
        posted = [kpi.name for kpi in self.kpis.values() if kpi.is_feedback]
        return self.reward or (posted[0] if len(posted) == 1 else "")


def subjects_of(config: Config) -> dict[str, Subject]:
    """Route -> subject, of every route that has KPIs or learns."""
    found: dict[str, Subject] = {}
    for route in config.routes:
        subject = _subject_of(route, config.feedback)
        if subject.kpis:
            found[route.name] = subject
    return found


def _subject_of(route: Route, settings: Feedback) -> Subject:
    options = route.options
    reward = ""
    if options.learner() is not None:
        reward = str(getattr(options, "reward", DEFAULT_REWARD))
    kpis = {name: _kpi_of(name, declared, reward) for name, declared in _declared(route)}
    if reward and reward not in kpis:
        kpis[reward] = Kpi(
            reward, Kind.NUMERIC, Goal.MAX, (0.0, 1.0), settings.window, None, True, is_reward=True
        )
    names = tuple(variant.name for variant in options.variants())
    is_sticky = getattr(options, "sticky", None) is not None
    return Subject(route.name, options.kind, names, kpis, reward, is_sticky)


def _declared(route: Route) -> list[tuple[str, Any]]:
    return list(route.kpis.items())


def _kpi_of(name: str, declared: Any, reward: str) -> Kpi:
    return Kpi(
        name=name,
        kind=Kind.BINARY if declared.is_binary else Kind.NUMERIC,
        goal=Goal.MIN if declared.is_less_better else Goal.MAX,
        bounds=(0.0, 1.0) if declared.is_binary else declared.bounds,
        window_s=declared.window,
        absent=declared.absent,
        is_feedback=declared.is_fed_back,
        is_guardrail=declared.guardrail,
        effect=declared.effect,
        planned=declared.units,
        is_reward=name == reward,
    )
