import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.experiments.estimate import (
    Difference,
    Kind,
    Mean,
    difference,
    lift_of,
    mean_of,
    unit_variance,
)
from router.experiments.sums import Stratum, Sums
from tests.experiments.cases import bits, of, spread

ONE, TWO = Stratum("", 1), Stratum("", 2)
COUNTS = st.integers(1, 500).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))
STRATA = st.lists(st.tuples(COUNTS, COUNTS), min_size=1, max_size=5)


def two_sides(strata: list[tuple[tuple[int, int], tuple[int, int]]]) -> tuple[dict, dict, dict]:
    a = {Stratum("", i): bits(*one) for i, (one, _) in enumerate(strata)}
    b = {Stratum("", i): bits(*other) for i, (_, other) in enumerate(strata)}
    return a, b, dict.fromkeys(a, 0.5)


def test_with_one_stratum_everything_is_plain() -> None:
    a, b, shares = {ONE: of(1, 2, 3, 6)}, {ONE: of(4, 4, 7)}, {ONE: 0.4}
    mean = mean_of(Kind.NUMERIC, a, shares)
    assert (mean.n, mean.value, mean.effective) == (4, 3.0, pytest.approx(4.0))
    assert mean.variance == pytest.approx(a[ONE].variance / 4)
    change = difference(Kind.NUMERIC, a, b, shares)
    assert change is not None
    own = a[ONE].variance / 4 + b[ONE].variance / 3
    common = (a[ONE] + b[ONE]).variance * (1 / 4 + 1 / 3)
    assert change.value == 2.0
    assert change.variance == pytest.approx(max(own, common))
    assert change.covariance == pytest.approx(-a[ONE].variance / 4)


def test_a_mean_weighs_each_value_by_one_over_its_propensity() -> None:
    results = {ONE: bits(80, 8), TWO: bits(20, 10)}
    mean = mean_of(Kind.BINARY, results, {ONE: 0.8, TWO: 0.2})
    assert mean.value == pytest.approx((8 / 0.8 + 10 / 0.2) / (80 / 0.8 + 20 / 0.2))  # .3
    assert mean.effective == pytest.approx(200**2 / (80 / 0.64 + 20 / 0.04))
    assert mean.n == 100


def test_what_came_at_share_zero_counts_nowhere() -> None:
    assert (
        mean_of(Kind.BINARY, {ONE: bits(9, 9), TWO: bits(4, 1)}, {ONE: 0.0, TWO: 1.0}).value == 0.25
    )
    nothing = mean_of(Kind.BINARY, {ONE: bits(9, 9)}, {ONE: 0.0})
    assert (nothing.n, nothing.effective, nothing.variance) == (0, 0.0, math.inf)


def test_a_good_day_is_not_taken_for_a_good_variant() -> None:
    # on both days b is no better; b got most of its traffic on the good one
    a = {ONE: bits(900, 90), TWO: bits(100, 50)}
    b = {ONE: bits(100, 10), TWO: bits(900, 450)}
    change = difference(Kind.BINARY, a, b, {ONE: 0.9, TWO: 0.1})
    assert change is not None
    assert change.value == pytest.approx(0.0)
    assert mean_of(Kind.BINARY, a, {ONE: 0.9, TWO: 0.1}).value == pytest.approx(0.3)
    assert mean_of(Kind.BINARY, b, {ONE: 0.1, TWO: 0.9}).value == pytest.approx(0.3)


@given(STRATA)
def test_swapping_the_variants_swaps_the_sign_and_nothing_else(strata: list) -> None:
    a, b, shares = two_sides(strata)
    there = difference(Kind.BINARY, a, b, shares)
    back = difference(Kind.BINARY, b, a, shares)
    assert there is not None and back is not None
    assert there.value == pytest.approx(-back.value, abs=1e-12)
    assert there.variance == pytest.approx(back.variance)


@given(STRATA)
def test_the_order_of_strata_means_nothing(strata: list) -> None:
    a, b, shares = two_sides(strata)
    turned = dict(reversed(a.items())), dict(reversed(b.items()))
    one, other = difference(Kind.BINARY, a, b, shares), difference(Kind.BINARY, *turned, shares)
    assert one is not None and other is not None
    assert one.value == pytest.approx(other.value, abs=1e-12)
    assert one.variance == pytest.approx(other.variance)


def test_without_a_stratum_of_both_there_is_no_difference() -> None:
    assert difference(Kind.BINARY, {ONE: bits(5, 1)}, {TWO: bits(5, 1)}, {ONE: 0.5}) is None
    assert difference(Kind.BINARY, {ONE: bits(5, 1)}, {ONE: Sums()}, {ONE: 0.5}) is None


def test_a_few_zeros_are_no_proof() -> None:
    assert unit_variance(Kind.BINARY, bits(5, 0)) > 0.0
    small = difference(Kind.BINARY, {ONE: bits(950, 30)}, {ONE: bits(5, 0)}, {ONE: 0.95})
    assert small is not None
    assert abs(small.value) / math.sqrt(small.variance) < 1.0


def test_under_weights_that_follow_the_rewards_only_the_plain_mean_is_biased() -> None:
    generator = np.random.default_rng(3)
    plain, weighted = [], []
    for _ in range(4000):
        first = bits(20, int(generator.binomial(20, 0.5)))
        share = 0.9 if first.mean > 0.5 else 0.1  # more of it if it went well
        second_n = int(generator.binomial(200, share))
        second = bits(second_n, int(generator.binomial(second_n, 0.5)))
        results = {ONE: first, TWO: second}
        plain.append((first + second).mean)
        weighted.append(mean_of(Kind.BINARY, results, {ONE: 0.1, TWO: share}).value)
    assert np.mean(plain) < 0.49
    assert np.mean(weighted) == pytest.approx(0.5, abs=0.004)  # four standard errors


def test_a_lift_has_the_variance_that_simulation_gives() -> None:
    generator = np.random.default_rng(4)
    a = generator.normal(10.0, 4.0, (20_000, 400)).mean(axis=1)
    b = generator.normal(12.0, 6.0, (20_000, 300)).mean(axis=1)
    change = Difference(2.0, 16 / 400 + 36 / 300, -16 / 400, 25.0)
    lift = lift_of(change, Mean(400, 10.0, 16 / 400, 400.0))
    assert lift is not None
    assert lift.value == pytest.approx(0.2)
    assert lift.variance == pytest.approx(np.var(b / a - 1.0), rel=0.05)


def test_there_is_no_lift_over_about_nothing() -> None:
    change = Difference(2.0, 1.0, 0.0, 1.0)
    assert lift_of(change, Mean(10, 0.1, 0.01, 10.0)) is None
    assert lift_of(change, Mean(0, 0.0, math.inf, 0.0)) is None


def test_numbers_have_their_own_variance() -> None:
    assert unit_variance(Kind.NUMERIC, spread(50, 3.0, 7.0)) == pytest.approx(7.0)
    assert unit_variance(Kind.LOGNORMAL, spread(50, 3.0, 7.0)) == pytest.approx(7.0)
