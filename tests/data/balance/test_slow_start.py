import pytest

from router.data.balance.slow_start import SlowStart


def test_a_weight_rises_in_a_straight_line_from_a_tenth() -> None:
    start = SlowStart(20.0)
    start.begin("a", 100.0)
    factors = [start.factor("a", now_s) for now_s in (100.0, 102.0, 110.0, 118.0, 120.0, 500.0)]
    assert factors == pytest.approx([0.1, 0.19, 0.55, 0.91, 1.0, 1.0])


def test_it_is_under_way_until_everybody_has_the_whole_weight() -> None:
    start = SlowStart(10.0)
    assert not start.is_under_way
    start.begin("a", 100.0)
    start.begin("b", 105.0)
    assert (start.factor("a", 110.0), start.is_under_way) == (1.0, True)
    assert (start.factor("b", 115.0), start.is_under_way) == (1.0, False)


def test_others_have_their_whole_weight() -> None:
    start = SlowStart(10.0)
    start.begin("a", 100.0)
    assert start.factor("b", 100.0) == 1.0


def test_one_that_comes_up_again_begins_anew() -> None:
    start = SlowStart(10.0)
    start.begin("a", 100.0)
    start.begin("a", 105.0)
    assert start.factor("a", 105.0) == pytest.approx(0.1)


def test_without_a_duration_nothing_rises() -> None:
    start = SlowStart(0.0)
    start.begin("a", 100.0)
    assert (start.factor("a", 100.0), start.is_under_way) == (1.0, False)


def test_there_are_ten_steps() -> None:
    assert SlowStart(30.0).step_s == 3.0
