"""What it costs to work out weights: one route, and a thousand whose every arm has new rewards."""

import random
import statistics
import time
from dataclasses import dataclass

from benchmarks.bandits.figures import ARMS, ROUTES
from router.policies.bandit import BanditOptions

_ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds of CPU: median of the rounds for all routes, and per route of the slowest kind."""

    case: str
    all_s: float
    one_s: float


def measure() -> list[Speed]:
    """Settled routes, routes that have just begun, and routes whose arms are all alike."""
    return [_case("just begun", 20), _case("learning", 2_000), _case("alike", 20_000)]


def _case(case: str, rewards: int) -> Speed:
    generator = random.Random(1)
    names = [f"v{arm}" for arm in range(ARMS)]
    variants = [{"backend": name} for name in names]
    options = BanditOptions.model_validate({"type": "bandit", "variants": variants, "change": None})
    learners = [options.learner() for _ in range(ROUTES)]
    spread = 0.0 if case == "alike" else 0.3
    for learner in learners:
        for name in names:
            n = max(1, round(rewards * generator.uniform(0.2, 1.0)))
            total = float(round(n * 0.1 * (1.0 + spread * generator.random())))
            learner.observe("", name, n, total, total)
    rounds = []
    for _ in range(_ROUNDS):
        for learner in learners:
            for name in names:
                learner.observe("", name, 1, 0.0, 0.0)
        started = time.process_time()
        for learner in learners:
            learner.weights()
        rounds.append(time.process_time() - started)
    middle = statistics.median(rounds)
    return Speed(case, middle, middle / ROUTES)
