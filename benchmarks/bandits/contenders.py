"""Who is measured: the router's bandit with its defaults, and two libraries with theirs.

MABWiser and River are asked for an arm once an exposure, and told of rewards when ours is. Of River
only epsilon-greedy and Thompson sampling: its UCB drops its bonus over a distribution object.
"""

import random
from collections.abc import Callable
from typing import Any, Final

from benchmarks.bandits.environments import Policy, drawn
from benchmarks.errors import BenchmarkError
from router.policies.bandit import BanditOptions


class Ours:
    """The learner behind `type: bandit`."""

    def __init__(self, arms: int, **options: Any) -> None:
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
    """One of River's policies."""

    def __init__(self, arms: int, policy: Any) -> None:
        self._arms = list(range(arms))
        self._policy = policy

    def choose(self, count: int, generator: random.Random) -> list[int]:
        return [self._policy.pull(self._arms) for _ in range(count)]

    def learn(self, rewards: list[tuple[int, float]]) -> None:
        for arm, reward in rewards:
            self._policy.update(arm, int(reward))


def _thompson(policies: Any) -> Any:
    return policies.ThompsonSampling()


def _ucb1(policies: Any) -> Any:
    return policies.UCB1(alpha=1)


def _greedy(policies: Any) -> Any:
    return policies.EpsilonGreedy(epsilon=0.1)


def _river_thompson(arms: int, seed: int) -> Policy:
    from river import bandit, proba

    return River(arms, bandit.ThompsonSampling(reward_obj=proba.Beta(), seed=seed))


def _river_greedy(arms: int, seed: int) -> Policy:
    from river import bandit

    return River(arms, bandit.EpsilonGreedy(epsilon=0.1, seed=seed))


Build = Callable[[int, int], Policy]
"""Number of arms, seed -> a fresh one."""
OURS: Final = "pointsman"
MABWISER_THOMPSON: Final = "mabwiser thompson"
RIVER_THOMPSON: Final = "river thompson"
CONTENDERS: Final[dict[str, Build]] = {
    OURS: lambda arms, seed: Ours(arms),
    MABWISER_THOMPSON: lambda arms, seed: Mabwiser(arms, seed, _thompson),
    "mabwiser ucb1": lambda arms, seed: Mabwiser(arms, seed, _ucb1),
    "mabwiser epsilon .1": lambda arms, seed: Mabwiser(arms, seed, _greedy),
    RIVER_THOMPSON: _river_thompson,
    "river epsilon .1": _river_greedy,
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
