import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.bandits.arms import Pulls, Reward
from router.bandits.shaping import AUTO_EXPOSURES, AUTO_LEAST, Shape, floored, held_back, stepped


def won(n: float, total: float) -> Pulls:
    return Pulls(n, total, total)


def test_an_automatic_floor_is_whole_for_what_may_be_best_and_less_for_what_is_clearly_worse() -> (
    None
):
    shape = Shape(0.02, is_auto=True)
    near = shape.floors([won(5000, 500), won(5000, 505)], Reward())
    apart = shape.floors([won(5000, 500), won(5000, 600)], Reward())
    far = shape.floors([won(5000, 500), won(5000, 4500)], Reward())

    assert near == [0.02, 0.02]
    assert apart[1] == 0.02
    # variance .098 over the square of the gap .02, in the exposures
    assert apart[0] == pytest.approx(0.098 / 0.02**2 / AUTO_EXPOSURES, rel=0.01)
    assert far[0] == pytest.approx(0.02 * AUTO_LEAST)


def test_a_floor_that_is_set_is_the_same_whatever_is_known() -> None:
    assert Shape(0.1).floors([won(500, 0), won(500, 500)], Reward()) == [0.1, 0.1]
    assert Shape(0.9).floors([Pulls(), Pulls()], Reward()) == [0.5, 0.5]


def test_the_automatic_floor_does_not_depend_on_the_unit_of_numbers() -> None:
    views = [Pulls(900, 900, 1900), Pulls(900, 1800, 4600)]
    scaled = [Pulls(v.n, 1e3 * v.total, 1e6 * v.squares) for v in views]
    shape = Shape(0.02, is_auto=True)

    assert shape.floors(views, Reward()) == pytest.approx(shape.floors(scaled, Reward()))


@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=6), st.floats(0.0, 0.1))
def test_floored_shares_sum_to_one_and_hold_their_floors(raw: list[float], floor: float) -> None:
    shares = floored([value / sum(raw) for value in raw], [floor] * len(raw))

    assert sum(shares) == pytest.approx(1.0, abs=1e-9)
    assert min(shares) >= floor


def test_newcomers_are_held_back_and_the_others_get_their_rest_in_proportion() -> None:
    shares = held_back({"a": 0.1, "b": 0.3, "new": 0.6}, {"new"}, Shape(0.02))

    assert shares == pytest.approx({"a": 0.225, "b": 0.675, "new": 0.1})
    assert held_back({"new": 1.0}, {"new"}, Shape(0.02)) == {"new": 1.0}


def test_a_step_goes_part_of_the_way_so_that_no_share_grows_by_more() -> None:
    before = {"a": 0.5, "b": 0.5, "gone": 0.0}

    assert stepped({"a": 0.1, "b": 0.9}, before, 0.1) == pytest.approx({"a": 0.4, "b": 0.6})
    assert stepped({"a": 0.45, "b": 0.55}, before, 0.1) == {"a": 0.45, "b": 0.55}
    assert stepped({"c": 1.0}, before, 0.1) == {"c": 1.0}
