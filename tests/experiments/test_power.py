import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from router.experiments.power import POWER, Design, detectable, units_needed
from router.experiments.sequential import half_width

DESIGN = Design(0.09, 0.0979, 0.5, 0.01**2, 0.05)


def test_what_is_needed_finds_the_effect_with_the_chance_that_was_asked_for() -> None:
    units = units_needed(DESIGN, 0.01)
    assert units is not None
    variance = DESIGN.variance(units)
    width = half_width(variance, DESIGN.scale, DESIGN.alpha)
    chance = stats.norm.sf(width, loc=0.01, scale=math.sqrt(variance))
    assert chance == pytest.approx(POWER, abs=1e-4)


def test_the_smallest_detectable_effect_is_the_inverse() -> None:
    units = units_needed(DESIGN, 0.01)
    assert units is not None
    assert detectable(DESIGN.variance(units), DESIGN.scale, 0.05) == pytest.approx(0.01, rel=1e-5)


@given(st.floats(0.001, 0.1), st.floats(1.05, 3.0))
def test_a_smaller_effect_needs_more(effect: float, times: float) -> None:
    few, many = units_needed(DESIGN, effect * times), units_needed(DESIGN, effect)
    assert few is not None and many is not None
    assert few < many


def test_an_uneven_split_needs_more() -> None:
    uneven = Design(0.09, 0.0979, 0.1, 0.01**2, 0.05)
    assert (units_needed(uneven, 0.01) or 0) > 2.5 * (units_needed(DESIGN, 0.01) or math.inf)


def test_the_sign_of_an_effect_means_nothing_and_no_effect_is_never_found() -> None:
    assert units_needed(DESIGN, -0.01) == units_needed(DESIGN, 0.01)
    assert units_needed(DESIGN, 0.0) is None
    assert units_needed(DESIGN, 1e-9) is None


def test_the_variant_with_the_smaller_share_has_the_less_certain_mean() -> None:
    design = Design(0.09, 0.16, 0.2, 1.0, 0.05)
    assert design.variance(1000) == pytest.approx(0.09 / 800 + 0.16 / 200)
