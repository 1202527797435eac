"""Who is measured: the router's bandit with its defaults, and two libraries with theirs.

MABWiser and River are asked for an arm once an exposure, and told of rewards when ours is. Of River
only epsilon-greedy and Thompson sampling: its UCB drops its bonus over a distribution object.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.bandits.environments import Policy, drawn
from benchmarks.errors import BenchmarkError
from router.policies.bandit import BanditOptions


class Ours:
    """The learner behind `type: bandit`."""

    def __init__(self, arms: int, seed: int, **options: Any) -> None:
        self._names = [f"v{arm}" for arm in range(arms)]
        variants = [{"backend": name} for name in self._names]
        document = {"type": "bandit", "variants": variants, **options}
        self._learner = BanditOptions.model_validate(document).learner()

    def choose(self, count: int, generator: random.Random) -> list[int]:
        weights = self._learner.weights()[""]
        return drawn([weights[name] for name in self._names], count, generator)

    def learn(self, rewards: list[tuple[int, float]]) -> None:
        for arm, reward in rewards:
            self._learner.observe("", self._names[arm], 1, reward, reward * reward)
        self._learner.tick(1.0)


class Mabwiser:
    """One of MABWiser's learning policies."""

    def __init__(self, arms: int, seed: int, policy: Callable[[Any], Any]) -> None:
        from mabwiser.mab import MAB, LearningPolicy

        self._bandit = MAB(list(range(arms)), policy(LearningPolicy), seed=seed)
        self._is_fresh = True

    def choose(self, count: int, generator: random.Random) -> list[int]:
        if self._is_fresh:
            return generator.choices(range(len(self._bandit.arms)), k=count)
        # one context an exposure, which a policy without contexts only counts
        chosen = self._bandit.predict([[0]] * count)
        return list(chosen) if isinstance(chosen, list) else [chosen] * count

    def learn(self, rewards: list[tuple[int, float]]) -> None:
        arms, values = [arm for arm, _ in rewards], [int(value) for _, value in rewards]
        learn = self._bandit.fit if self._is_fresh else self._bandit.partial_fit
        learn(arms, values)
        self._is_fresh = False


class River:
    """One of River's policies, by its class name."""

    def __init__(self, arms: int, seed: int, name: str) -> None:
        from river import bandit, proba

        self._arms = list(range(arms))
        if name == "ThompsonSampling":
            self._policy = bandit.ThompsonSampling(reward_obj=proba.Beta(), seed=seed)
        else:
            self._policy = bandit.EpsilonGreedy(epsilon=0.1, seed=seed)

    def choose(self, count: int, generator: random.Random) -> list[int]:
        return [self._policy.pull(self._arms) for _ in range(count)]

    def learn(self, rewards: list[tuple[int, float]]) -> None:
        for arm, reward in rewards:
            self._policy.update(arm, int(reward))


@dataclass(frozen=True, slots=True)
class Contender:
    """`build(arms, seed)` gives a fresh one. `is_reference`: plain Thompson, to be beaten where
    something changes."""

    name: str
    build: Callable[[int, int], Policy]
    is_ours: bool = False


def _thompson(policies: Any) -> Any:
    return policies.ThompsonSampling()


def _ucb1(policies: Any) -> Any:
    return policies.UCB1(alpha=1)


def _greedy(policies: Any) -> Any:
    return policies.EpsilonGreedy(epsilon=0.1)


OURS: Final = "pointsman"
MABWISER_THOMPSON: Final = "mabwiser thompson"
RIVER_THOMPSON: Final = "river thompson"
CONTENDERS: Final = {
    OURS: lambda arms, seed: Ours(arms, seed),
    MABWISER_THOMPSON: lambda arms, seed: Mabwiser(arms, seed, _thompson),
    "mabwiser ucb1": lambda arms, seed: Mabwiser(arms, seed, _ucb1),
    "mabwiser epsilon .1": lambda arms, seed: Mabwiser(arms, seed, _greedy),
    RIVER_THOMPSON: lambda arms, seed: River(arms, seed, "ThompsonSampling"),
    "river epsilon .1": lambda arms, seed: River(arms, seed, "EpsilonGreedy"),
}


def require_libraries() -> dict[str, str]:
    """Their versions.

    Raises:
        BenchmarkError: one is not installed.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        return {name: version(name) for name in ("mabwiser", "river")}
    except PackageNotFoundError as error:
        raise BenchmarkError(f"{error.name} is missing: pip install 'pointsman[bench]'") from error
