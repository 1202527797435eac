import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from router.experiments.sequential import (
    Seen,
    TwoProportions,
    adjusted,
    half_width,
    log_ratio,
    p_value,
    scale_for_units,
)
from tests.experiments.cases import bits

POSITIVE = st.floats(1e-3, 1e3)


@pytest.mark.parametrize(("x", "variance", "scale"), [(0.0, 1.0, 1.0), (2.0, 0.5, 3.0), (-1, 2, 9)])
def test_the_ratio_is_the_mean_likelihood_ratio_over_normal_effects(
    x: float, variance: float, scale: float
) -> None:
    def weighted(effect: float) -> float:
        likelihood = stats.norm.pdf(x, effect, math.sqrt(variance))
        return float(likelihood * stats.norm.pdf(effect, 0.0, math.sqrt(scale)))

    alternative, _ = integrate.quad(weighted, -50.0, 50.0, points=[0.0, x])
    null = stats.norm.pdf(x, 0.0, math.sqrt(variance))
    assert log_ratio(x, variance, scale) == pytest.approx(math.log(alternative / null), rel=1e-6)


@given(POSITIVE, POSITIVE, st.floats(0.001, 0.5))
def test_the_interval_ends_where_the_p_value_is_alpha(
    variance: float, scale: float, alpha: float
) -> None:
    width = half_width(variance, scale, alpha)
    assert p_value(width, variance, scale) == pytest.approx(alpha, rel=1e-6)
    assert p_value(-width * 1.01, variance, scale) < alpha
    assert p_value(width * 0.99, variance, scale) > alpha


def test_the_interval_is_the_asymptotic_confidence_sequence() -> None:
    # Waudby-Smith et al., equation for the half-width, with s = 2, n = 700, rho^2 = .003
    s, n, rho2, alpha = 2.0, 700, 0.003, 0.05
    theirs = s * math.sqrt(
        2 * (n * rho2 + 1) / (n**2 * rho2) * math.log(math.sqrt(n * rho2 + 1) / alpha)
    )
    assert half_width(s**2 / n, rho2 * s**2, alpha) == pytest.approx(theirs)


@pytest.mark.parametrize("planned", [100, 5000, 10**6])
def test_the_interval_is_about_narrowest_at_the_planned_units(planned: int) -> None:
    best = optimize.minimize_scalar(
        lambda log_scale: half_width(1.0 / planned, math.exp(log_scale), 0.05),
        bounds=(-30.0, 10.0),
        method="bounded",
    )
    chosen = half_width(1.0 / planned, scale_for_units(1.0, planned, 0.05), 0.05)
    assert chosen == pytest.approx(best.fun, rel=0.002)


def test_peeking_at_every_value_is_wrong_in_at_most_five_of_a_hundred() -> None:
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(1000):
        sums = np.cumsum(generator.standard_normal(500))
        wrong += any(p_value(s / n, 1 / n, 0.05) <= 0.05 for n, s in enumerate(sums, 1))
    assert wrong / 1000 <= 0.05 + 2 * 0.007  # two standard errors; a z-test is wrong in a half


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(-1, 1), st.floats(0, 1)), min_size=1))
def test_p_never_rises_and_common_intervals_never_grow(
    looks: list[tuple[float, float, float]],
) -> None:
    course = [Seen()]
    for p, at, width in looks:
        course.append(course[-1].then(p, at, at - width, at + width))
    for before, after in itertools.pairwise(course):
        assert after.p <= before.p
        assert after.low >= before.low and after.high <= before.high
        assert Seen.restore(after.dump()) == after
    least = min([1.0, *(p for p, _, _ in looks)])
    assert course[-1].p == least


@pytest.mark.parametrize("dumped", [[1.0], None, [None, 0, 0, 0], ["x", 0, 0, 0]])
def test_what_was_seen_is_restored_from_dumps_only(dumped: object) -> None:
    with pytest.raises(ValueError):
        Seen.restore(dumped)  # type: ignore[arg-type]  # what a store may hold


@pytest.mark.parametrize("theta", [0.02, 0.5, 0.9])
def test_a_block_is_expected_to_gain_nothing_if_there_is_no_difference(theta: float) -> None:
    na, nb = 4, 2
    expected = 0.0
    for a, b in itertools.product(range(na + 1), range(nb + 1)):
        test = TwoProportions(bits(50, 5), bits(50, 25))  # blocks before that suggest one
        test.observe(bits(na, a), bits(nb, b))
        chance = stats.binom.pmf(a, na, theta) * stats.binom.pmf(b, nb, theta)
        expected += chance * math.exp(test.log_e)
    assert expected <= 1.0 + 1e-12
    assert expected > 0.2  # it is a bet, not nothing


def test_a_difference_is_found_exactly_and_by_either_side() -> None:
    one, other = TwoProportions(), TwoProportions()
    for _ in range(60):
        one.observe(bits(50, 5), bits(50, 10))
        other.observe(bits(50, 10), bits(50, 5))
    assert one.p < 0.001
    assert one.log_e == pytest.approx(other.log_e)


def test_the_p_value_of_two_proportions_never_rises() -> None:
    test = TwoProportions()
    found = [test.p]
    for ones in (0, 0, 20, 20, 0, 0, 0):
        test.observe(bits(20, 10), bits(20, ones))
        found.append(test.p)
    assert found == sorted(found, reverse=True)
    assert test.log_e < test.most


def test_a_block_of_one_variant_alone_says_nothing_but_is_remembered() -> None:
    test = TwoProportions()
    test.observe(bits(100, 90), bits(0, 0))
    assert (test.log_e, test.a) == (0.0, bits(100, 90))


def test_two_proportions_are_restored_from_a_dump() -> None:
    test = TwoProportions()
    test.observe(bits(20, 10), bits(20, 1))
    test.observe(bits(20, 10), bits(20, 1))
    again = TwoProportions.restore(test.dump())
    assert again == test
    with pytest.raises(ValueError):
        TwoProportions.restore([[0, 0, 0]])
    with pytest.raises(ValueError):
        TwoProportions.restore([[0, 0, 0], [0, 0, 0], None, 0])


@given(st.lists(st.floats(0.0001, 1.0), max_size=12))
def test_many_p_values_are_adjusted_as_scipy_does(p_values: list[float]) -> None:
    theirs = list(stats.false_discovery_control(p_values)) if p_values else []
    assert adjusted(p_values) == pytest.approx(theirs)
