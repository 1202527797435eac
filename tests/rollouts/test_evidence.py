"""The sequential tests: their expectation under the null, their error when looked at all the time,
and their formulas beside scipy's."""

import itertools
import json
import math
import random

import pytest
from scipy import stats

from router.rollouts.evidence import (
    DISPERSION_MAX,
    EFFECTS,
    Dispersion,
    Pace,
    RateE,
    RateRatioE,
    wilson,
)


def pmf(n: int, p: float) -> list[float]:
    return [float(one) for one in stats.binom.pmf(range(n + 1), n, p)]


def after(test: RateRatioE | RateE, *block: float) -> float:
    """The value that a copy of `test` has after one more block."""
    before = test.dump()
    test.observe(*block)  # type: ignore[arg-type]  # counts of either kind of test
    value = test.value
    test.restore(before)
    return value


@pytest.mark.parametrize("is_above", [True, False])
@pytest.mark.parametrize("dispersion", [1.0, 1.7, 6.0])
@pytest.mark.parametrize(("ratio", "pa"), [(1.0, 0.02), (1.1, 0.05), (1.25, 0.2), (2.0, 0.1)])
def test_the_ratio_s_evidence_is_not_expected_to_grow_under_the_null(
    is_above: bool, dispersion: float, ratio: float, pa: float
) -> None:
    test = RateRatioE(ratio, is_above=is_above, enough=200)
    test.observe(20, 1, 7, 2, 1.0)  # not from the start only: from any past
    na, nb = 23, 6
    for pb in (ratio * pa, ratio * pa * (0.6 if is_above else 1.5)):
        expected = sum(
            wa * wb * after(test, na, a, nb, b, dispersion)
            for (a, wa), (b, wb) in itertools.product(
                enumerate(pmf(na, pa)), enumerate(pmf(nb, min(1.0, pb)))
            )
        )
        assert expected <= test.value * (1 + 1e-9)


@pytest.mark.parametrize("most", [2.0, 3.4])
@pytest.mark.parametrize("pa", [0.005, 0.02, 0.05])
def test_a_discount_by_the_block_s_own_total_keeps_the_expectation(pa: float, most: float) -> None:
    test, na, nb = RateRatioE(1.1, is_above=True, enough=200), 60, 12
    expected = sum(
        wa * wb * after(test, na, a, nb, b, max(1.0, (a + b) / most))
        for (a, wa), (b, wb) in itertools.product(
            enumerate(pmf(na, pa)), enumerate(pmf(nb, 1.1 * pa))
        )
    )
    assert expected <= 1 + 1e-9


@pytest.mark.parametrize("is_above", [True, False])
@pytest.mark.parametrize("dispersion", [1.0, 2.5])
@pytest.mark.parametrize("rate", [0.005, 0.05, 0.5])
def test_a_rate_s_evidence_is_not_expected_to_grow_under_the_null(
    is_above: bool, dispersion: float, rate: float
) -> None:
    test = RateE(rate, is_above=is_above, enough=100)
    test.observe(40, 3, 1.0)
    n = 50
    for true in (rate, rate * (0.7 if is_above else 1.4)):
        weights = enumerate(pmf(n, true))
        expected = sum(w * after(test, n, k, dispersion) for k, w in weights)
        assert expected <= test.value * (1 + 1e-9)


def test_counting_fewer_events_keeps_evidence_of_a_high_rate_small() -> None:
    test = RateE(0.1, is_above=True, enough=100)
    expected = sum(w * after(test, 40, min(k, 6), 1.0) for k, w in enumerate(pmf(40, 0.1)))
    assert expected <= 1 + 1e-9


def test_at_the_null_s_border_the_rate_s_evidence_is_expected_to_stay() -> None:
    test = RateE(0.05, is_above=True, enough=1e60)
    expected = sum(w * after(test, 30, k, 1.0) for k, w in enumerate(pmf(30, 0.05)))
    assert expected == pytest.approx(1.0, abs=1e-9)


def test_the_first_block_s_evidence_is_the_mean_of_likelihood_ratios() -> None:
    na, a, nb, b, ratio = 90, 2, 10, 3, 1.25

    def q(theta: float) -> float:
        return theta * nb / (theta * nb + na)

    ratios = [
        stats.binom.pmf(b, a + b, q(ratio * effect)) / stats.binom.pmf(b, a + b, q(ratio))
        for effect in EFFECTS
    ]
    begun = 0.8 + 0.2 * (1 - 1 / (1 + 1 / 30))
    test = RateRatioE(ratio, is_above=True, enough=1e6)
    test.observe(na, a, nb, b, 1.0)
    expected = begun * float(sum(ratios)) / len(ratios) + (1 - begun)
    assert test.value == pytest.approx(expected)


def test_one_of_two_variants_says_nothing_of_a_ratio() -> None:
    test = RateRatioE(1.25, is_above=True, enough=200)
    for block in ((0, 0, 50, 30), (50, 30, 0, 0), (50, 0, 50, 0)):
        test.observe(*block, 1.0)
    assert test.value == pytest.approx(1.0)


@pytest.mark.parametrize("change", [0.05, 0.5])
def test_looking_after_every_second_is_wrong_no_more_often_than_stated(change: float) -> None:
    """Rates and weights that change for both at once must do no harm. Stated: 5 %, 400 runs."""
    alpha, runs, crossed = 0.05, 400, 0
    for seed in range(runs):
        chance = random.Random(seed)
        test = RateRatioE(1.25, is_above=True, enough=1 / alpha)
        for second in range(150):
            weight = change if second > 60 else 0.1
            pa = 0.04 if second % 50 < 25 else 0.01
            nb = chance.randint(0, round(80 * weight))
            a = sum(chance.random() < pa for _ in range(80 - nb))
            b = sum(chance.random() < 1.25 * pa for _ in range(nb))
            test.observe(80 - nb, a, nb, b, 1.0)
            if test.value >= 1 / alpha:
                crossed += 1
                break
    assert crossed / runs <= alpha + 2 * math.sqrt(alpha * (1 - alpha) / runs)


def test_a_change_after_an_hour_is_found_about_as_soon_as_at_once() -> None:
    def blocks_until_shown(healthy: int) -> int:
        test = RateRatioE(1.1, is_above=True, enough=200)
        for _ in range(healthy):
            test.observe(180, 2, 20, 0.2, 1.0)
        for block in range(1000):
            if test.value >= 200:
                return block
            test.observe(180, 2, 20, 1, 1.0)
        return 1000

    assert blocks_until_shown(3600) < 3 * blocks_until_shown(0)


def test_evidence_that_a_rate_is_low_does_not_outlast_its_being_low() -> None:
    test = RateE(0.01, is_above=False, enough=20)
    for _ in range(10_000):
        test.observe(100, 0, 1.0)
    assert test.value == pytest.approx(200, rel=0.01)
    test.observe(100, 5, 1.0)
    assert test.value < 20


def test_evidence_is_kept_exactly() -> None:
    one = RateRatioE(1.1, is_above=True, enough=200)
    other = RateRatioE(1.1, is_above=True, enough=200)
    for k in range(50):
        one.observe(90, k % 3, 10, k % 2, 1.3)
    other.restore(json.loads(json.dumps(one.dump())))
    for test in (one, other):
        test.observe(90, 1, 10, 2, 1.0)
    assert one.dump() == other.dump()
    with pytest.raises(ValueError, match="expected 24 alternatives, found 2"):
        other.restore([1, 1.0, [0.5, 0.5]])


def test_huge_counts_overflow_nothing() -> None:
    test = RateRatioE(1.1, is_above=True, enough=200)
    for _ in range(100):
        test.observe(1_000_000, 0, 1_000_000, 1_000_000, 1.0)
    assert 200 <= test.value <= 2001
    for _ in range(100):
        test.observe(1_000_000, 1_000_000, 1_000_000, 0, 1.0)
    assert 0 < test.value < 1


def test_the_dispersion_is_pearson_s_statistic() -> None:
    counts = [(100, 3), (120, 9), (80, 0), (100, 14), (90, 2), (110, 30)]
    found = Dispersion()
    for n, k in counts:
        found.observe(n, k)
    total_n, total_k = (sum(column) for column in zip(*counts, strict=True))
    p = total_k / total_n
    pearson = stats.chisquare(
        [x for n, k in counts for x in (k, n - k)],
        [x for n, _ in counts for x in (n * p, n * (1 - p))],
    ).statistic
    # what is older counts less, but over six seconds hardly
    assert found.value == pytest.approx((5 + float(pearson)) / (5 + len(counts) - 1), rel=0.01)


def test_independent_failures_have_dispersion_one_and_bursts_more() -> None:
    chance = random.Random(1)
    steady, bursty = Dispersion(), Dispersion()
    for _ in range(300):
        steady.observe(180, sum(chance.random() < 0.01 for _ in range(180)))
        bursty.observe(180, 10 if chance.random() < 0.18 else 0)
    assert steady.value == 1.0
    assert 6 < bursty.value <= DISPERSION_MAX
    assert Dispersion().value == 1.0


def test_a_rate_that_drifts_is_not_taken_for_bursts() -> None:
    chance = random.Random(2)
    found = Dispersion()
    for second in range(7200):
        rate = 0.01 * (1 + second / 7200)
        found.observe(10_000, round(chance.gauss(10_000 * rate, math.sqrt(10_000 * rate))))
    assert found.value == 1.0


def test_a_block_counts_as_little_more_than_what_is_usual() -> None:
    pace = Pace()
    assert pace.most(200) == 4 + 2
    for _ in range(100):
        pace.observe(200, 9)
    assert pace.most(200) == pytest.approx(9 + 3, rel=0.01)
    assert pace.most(100) == pytest.approx(4.5 + math.sqrt(4.5), rel=0.01)


@pytest.mark.parametrize(("k", "n"), [(0, 50), (3, 400), (50, 50), (10, 37)])
@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_limits_of_a_rate_are_wilson_s(k: int, n: int, confidence: float) -> None:
    two_sided = 2 * confidence - 1
    limits = stats.binomtest(k, n).proportion_ci(confidence_level=two_sided, method="wilson")
    assert wilson(k, n, confidence) == pytest.approx((limits.low, limits.high), abs=1e-9)
