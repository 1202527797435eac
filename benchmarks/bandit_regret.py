"""What the bandit loses against always sending to the best variant, in simulated environments.

Command: `python -m benchmarks.bandit_regret [--seeds N] [--environments b2,b3]`. Pure arithmetic,
no traffic: one route, 20,000 exposures, weights recomputed every 200. A reward arrives at once or
500 exposures later. The figures depend on nothing but the code and the seeds.
"""

import argparse
import itertools
import platform
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from router.policies.bandit import BanditOptions

EXPOSURES: Final = 20_000
ROUND: Final = 200
DELAYS: Final = (0, 500)


@dataclass(frozen=True, slots=True)
class Environment:
    """Means of the variants' binary rewards, in the first and in the second half."""

    first: tuple[float, ...]
    second: tuple[float, ...]

    def means(self, exposure: int) -> tuple[float, ...]:
        return self.first if exposure < EXPOSURES // 2 else self.second


def _constant(*means: float) -> Environment:
    return Environment(means, means)


ENVIRONMENTS: Final = {
    "b2": _constant(0.10, 0.12),
    "b3": _constant(0.05, 0.05, 0.07),
    "b5": _constant(0.05, 0.06, 0.07, 0.08, 0.10),
    "b5hi": _constant(0.70, 0.70, 0.70, 0.70, 0.90),
    "sw2": Environment((0.10, 0.12), (0.12, 0.10)),
    "sw2big": Environment((0.05, 0.15), (0.15, 0.05)),
    "sw3break": Environment((0.90, 0.88, 0.85), (0.40, 0.88, 0.85)),
}


def regret(environment: Environment, seed: int, delay: int) -> float:
    """Rewards lost in expectation over `EXPOSURES`, rewards arriving `delay` exposures later."""
    names = [f"v{i}" for i in range(len(environment.first))]
    options = BanditOptions.model_validate(
        {"type": "bandit", "variants": [{"backend": name} for name in names]}
    )
    learner = options.learner()
    generator = random.Random(seed)
    pending: list[tuple[str, float]] = []
    lost = 0.0
    for start in range(0, EXPOSURES, ROUND):
        arrived = max(0, len(pending) - delay)
        for name, reward in pending[:arrived]:
            learner.observe(name, reward)
        del pending[:arrived]
        weights = learner.weights()
        means = environment.means(start)
        bounds = list(itertools.accumulate(weights[name] for name in names))
        for k in generator.choices(range(len(names)), cum_weights=bounds, k=ROUND):
            pending.append((names[k], float(generator.random() < means[k])))
            lost += max(means) - means[k]
    return lost


def regrets(environment: Environment, seeds: int, delay: int) -> list[float]:
    """`regret` for seeds 0, 1, ..."""
    return [regret(environment, seed, delay) for seed in range(seeds)]


def rows(names: Sequence[str], seeds: int) -> Iterator[str]:
    """The table's lines, each as soon as it is known."""
    yield f"{'environment':<12} {'delay':>5} {'mean':>7} {'se':>5} {'median':>7} {'p95':>7}"
    for name in names:
        for delay in DELAYS:
            found = sorted(regrets(ENVIRONMENTS[name], seeds, delay))
            error = statistics.stdev(found) / seeds**0.5
            p95 = found[min(seeds - 1, int(0.95 * seeds))]
            yield (
                f"{name:<12} {delay:>5} {statistics.fmean(found):>7.1f} {error:>5.1f} "
                f"{statistics.median(found):>7.1f} {p95:>7.1f}"
            )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bandit_regret")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--environments", default=",".join(ENVIRONMENTS))
    arguments = parser.parse_args(argv)
    names = arguments.environments.split(",")
    if unknown := [name for name in names if name not in ENVIRONMENTS]:
        parser.error(
            f"unknown environment {unknown[0]}, expected some of {', '.join(ENVIRONMENTS)}"
        )
    if arguments.seeds < 2:
        parser.error("a spread needs at least two seeds")
    print(f"python {platform.python_version()}, {platform.system()} {platform.release()}")
    print(f"{EXPOSURES} exposures, weights every {ROUND}, seeds 0..{arguments.seeds - 1}")
    started = time.perf_counter()
    for row in rows(names, arguments.seeds):
        print(row, flush=True)
    print(f"took {time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
