"""The simulated routes: binary rewards, means that may change, rewards that come late.

20,000 exposures; weights are worked out every 200. A reward arrives `delay` exposures after its
own, at the next round. What is lost is counted in expectation: the best mean less that of the arm.
"""

import itertools
import random
from dataclasses import dataclass
from typing import Final, Protocol

EXPOSURES: Final = 20_000
ROUND: Final = 200
DELAYS: Final = (0, 500)


class Policy(Protocol):
    """A bandit, ours or another's."""

    def choose(self, count: int, generator: random.Random) -> list[int]:
        """The arms of the next `count` exposures, by what is known now."""
        ...

    def learn(self, rewards: list[tuple[int, float]]) -> None:
        """Count rewards of arms."""
        ...


@dataclass(frozen=True, slots=True)
class Environment:
    """Means of the arms' rewards: `(first exposure, means)`, in order."""

    stretches: tuple[tuple[int, tuple[float, ...]], ...]

    @property
    def arms(self) -> int:
        return len(self.stretches[0][1])

    @property
    def is_steady(self) -> bool:
        return len(self.stretches) == 1

    def means(self, exposure: int) -> tuple[float, ...]:
        return next(means for first, means in reversed(self.stretches) if exposure >= first)


def steady(*means: float) -> Environment:
    return Environment(((0, means),))


def switched(first: tuple[float, ...], second: tuple[float, ...]) -> Environment:
    """One that changes at half time."""
    return Environment(((0, first), (EXPOSURES // 2, second)))


ENVIRONMENTS: Final = {
    "b2": steady(0.10, 0.12),
    "b3": steady(0.05, 0.05, 0.07),
    "b5": steady(0.05, 0.06, 0.07, 0.08, 0.10),
    "b5hi": steady(0.70, 0.70, 0.70, 0.70, 0.90),
    "sw2": switched((0.10, 0.12), (0.12, 0.10)),
    "sw2big": switched((0.05, 0.15), (0.15, 0.05)),
    "sw3break": switched((0.90, 0.88, 0.85), (0.40, 0.88, 0.85)),
}


def regret(environment: Environment, policy: Policy, seed: int, delay: int) -> float:
    """What `policy` loses, in rewards, over all exposures."""
    generator = random.Random(seed)
    pending: list[tuple[int, float]] = []
    lost = 0.0
    for start in range(0, EXPOSURES, ROUND):
        arrived = max(0, len(pending) - delay)
        if arrived:
            policy.learn(pending[:arrived])
            del pending[:arrived]
        means = environment.means(start)
        for arm in policy.choose(ROUND, generator):
            pending.append((arm, float(generator.random() < means[arm])))
            lost += max(means) - means[arm]
    return lost


def drawn(weights: list[float], count: int, generator: random.Random) -> list[int]:
    """Arms by their weights."""
    bounds = list(itertools.accumulate(weights))
    return generator.choices(range(len(weights)), cum_weights=bounds, k=count)
