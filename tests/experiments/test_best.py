import math

import numpy as np
import pytest
from scipy import stats

from router.experiments.best import probability_best


@pytest.mark.parametrize("gap", [0.0, 0.5, 2.0, 5.0])
def test_of_two_it_is_the_normal_probability(gap: float) -> None:
    found = probability_best([(0.0, 1.0), (gap, 3.0)], 1.0)
    assert found is not None
    assert found[1] == pytest.approx(stats.norm.cdf(gap / 2.0), abs=0.002)
    assert math.fsum(found) == pytest.approx(1.0)


def test_of_many_it_is_what_drawing_gives() -> None:
    means = [(0.0, 1.0), (0.5, 0.25), (0.4, 4.0), (-3.0, 0.01)]
    drawn = np.random.default_rng(0).normal(
        [m for m, _ in means], [math.sqrt(v) for _, v in means], (400_000, 4)
    )
    counts = np.bincount(drawn.argmax(axis=1), minlength=4) / 400_000
    assert probability_best(means, 1.0) == pytest.approx(list(counts), abs=0.004)


def test_where_less_is_better_the_least_is_best() -> None:
    found = probability_best([(1.0, 0.1), (2.0, 0.1)], -1.0)
    assert found is not None and found[0] > 0.95


def test_of_one_it_is_certain_and_of_none_or_unknown_there_is_none() -> None:
    assert probability_best([(1.0, 0.1)], 1.0) == [1.0]
    assert probability_best([], 1.0) is None
    assert probability_best([(1.0, 0.1), (1.0, math.inf)], 1.0) is None
    assert probability_best([(1.0, 0.1), (1.0, 0.0)], 1.0) is None
