import random
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats  # type: ignore[import-untyped]  # scipy has no types

from router.policies.posterior import Evidence, probability_best

POSTERIORS = [
    [(1.0, 1.0)],
    [(1.0, 1.0), (1.0, 1.0)],
    [(11.0, 91.0), (15.0, 90.0)],
    [(1.0, 1.0), (1.0, 101.0)],
    [(51.0, 1000.0), (60.0, 1000.0), (70.0, 1000.0), (20.0, 200.0), (110.0, 1000.0)],
    [(1e6, 1e6), (1e6 + 1500, 1e6), (2.0, 2.0)],
    [(1.0, 1001.0), (2.0, 1000.0), (1.0, 500.0)],
    [(300.0, 1.0), (500.0, 1.0), (200.0, 2.0)],
]


def observed(rewards: Iterable[float]) -> Evidence:
    evidence = Evidence()
    for reward in rewards:
        evidence.observe(reward)
    return evidence


def binary(mean: float, count: int, seed: int) -> list[float]:
    generator = random.Random(seed)
    return [float(generator.random() < mean) for _ in range(count)]


@pytest.mark.parametrize("posteriors", POSTERIORS)
def test_probability_best_agrees_with_200000_draws(posteriors: list[tuple[float, float]]) -> None:
    generator = np.random.default_rng(7)
    draws = np.stack([generator.beta(a, b, 200_000) for a, b in posteriors])
    shares = np.bincount(draws.argmax(axis=0), minlength=len(posteriors)) / 200_000

    # 0.001 of the quadrature and 4 standard errors of the draws
    assert probability_best(posteriors) == pytest.approx(list(shares), abs=0.001 + 0.0045)


@pytest.mark.parametrize("posteriors", [p for p in POSTERIORS if len(p) == 2])
def test_probability_best_of_two_agrees_with_scipy_within_a_thousandth(
    posteriors: list[tuple[float, float]],
) -> None:
    one, other = (stats.beta(a, b) for a, b in posteriors)
    exact, _ = integrate.quad(lambda x: one.pdf(x) * other.cdf(x), 0, 1, limit=500)

    assert probability_best(posteriors)[0] == pytest.approx(exact, abs=0.001)


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.floats(1.0, 1e7), st.floats(1.0, 1e7)),
        min_size=1,
        max_size=6,
    )
)
def test_probabilities_sum_to_one_for_any_posteriors(
    posteriors: list[tuple[float, float]],
) -> None:
    best = probability_best(posteriors)

    assert sum(best) == pytest.approx(1.0, abs=1e-9)
    assert all(p >= 0.0 for p in best)


def test_the_posterior_counts_successes_and_failures_also_in_fractions() -> None:
    assert observed([1, 1, 0]).beta == (3.0, 2.0)
    assert observed([0.25, 0.5]).beta == (1.75, 2.25)
    assert observed([]).mean == 0.5
    assert observed([1, 1, 0]).mean == 0.6


def test_steady_rewards_are_all_remembered() -> None:
    evidence = observed(binary(0.1, 10_000, seed=1))

    assert evidence.n == evidence.ever == 10_000


def test_rewards_from_before_a_change_are_forgotten() -> None:
    evidence = observed(binary(0.9, 3_000, seed=2) + binary(0.4, 1_500, seed=3))

    assert evidence.ever == 4_500
    assert evidence.n <= 2_025
    assert evidence.mean < 0.5


def test_a_rise_is_noticed_as_well_as_a_fall() -> None:
    evidence = observed(binary(0.05, 3_000, seed=4) + binary(0.15, 1_500, seed=5))

    assert evidence.n < 4_500
    assert evidence.mean > 0.1


def test_false_alarms_are_rare() -> None:
    alarms = sum(observed(binary(0.1, 4_000, seed)).n < 4_000 for seed in range(40))

    assert alarms <= 6


@given(st.lists(st.floats(0.0, 1.0), max_size=200))
def test_any_rewards_leave_a_proper_posterior_and_bounded_memory(rewards: list[float]) -> None:
    evidence = observed(rewards * 15)

    assert min(evidence.beta) >= 1.0 - 1e-6
    assert len(evidence.chunks) <= 81
    assert sum(count for count, _ in evidence.chunks) <= evidence.n
