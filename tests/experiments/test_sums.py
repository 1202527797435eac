import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.experiments.sums import Arm, Stratum, Sums, added
from tests.experiments.cases import of

VALUES = st.lists(st.integers(-1000, 1000), max_size=30)


@given(VALUES, VALUES)
def test_sums_of_parts_add_up_to_the_sums_of_all(left: list[int], right: list[int]) -> None:
    assert of(*left) + of(*right) == of(*left, *right)


@given(st.permutations([[1], [2, 3], [], [40, 5, 6]]))
def test_the_order_of_adding_means_nothing(parts: list[list[int]]) -> None:
    assert added(of(*part) for part in parts) == of(1, 2, 3, 40, 5, 6)


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=30))
def test_mean_and_variance_are_those_of_the_values(values: list[int]) -> None:
    sums = of(*values)
    assert sums.mean == pytest.approx(statistics.fmean(values))
    assert sums.variance == pytest.approx(statistics.variance(values), abs=1e-9)


def test_nothing_has_mean_and_variance_zero() -> None:
    assert (Sums().mean, Sums().variance, of(3.0).variance) == (0.0, 0.0, 0.0)


def test_rounding_never_makes_a_variance_negative() -> None:
    assert of(*[0.1] * 10).variance >= 0.0


@given(VALUES)
def test_a_dump_is_restored(values: list[int]) -> None:
    assert Sums.restore(of(*values).dump()) == of(*values)


@pytest.mark.parametrize(
    "dumped",
    [
        [-1, 0.0, 0.0],
        [2, math.nan, 1.0],
        [2, 1.0, math.inf],
        [2, 1.0, -1.0],
        [2, 10.0, 1.0],  # two values that sum to 10 have squares of 50 at least
        [1, 1.0],
        [1, "x", 1.0],
        [1, None, 1.0],
        7,
    ],
)
def test_what_no_values_can_have_is_refused(dumped: object) -> None:
    with pytest.raises(ValueError):
        Sums.restore(dumped)  # type: ignore[arg-type]  # what a store may hold


def test_arms_sort_by_variant_then_cell_then_version() -> None:
    arms = [Arm("b"), Arm("a", Stratum("x", 0)), Arm("a", Stratum("", 2)), Arm("a")]
    assert sorted(arms) == [arms[3], arms[2], arms[1], arms[0]]
