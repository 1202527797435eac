import pytest

from router.data.balance.random import Random
from tests.data.balance.targets import Target, shares, targets


def test_endpoints_are_drawn_by_weight() -> None:
    picker = Random[Target]()
    picker.adopt(targets(1.0, 2.0, 5.0))
    # five standard deviations of a binomial
    assert shares(picker, 8000, seed=1) == {
        "a": pytest.approx(1 / 8, abs=0.019),
        "b": pytest.approx(2 / 8, abs=0.025),
        "c": pytest.approx(5 / 8, abs=0.028),
    }


def test_what_an_endpoint_has_to_do_makes_no_difference() -> None:
    picker = Random[Target]()
    picker.adopt((Target("a", in_flight=1000), Target("b")))
    assert shares(picker, 8000, seed=2)["a"] == pytest.approx(0.5, abs=0.028)


def test_after_a_change_the_new_ones_are_drawn() -> None:
    picker = Random[Target]()
    picker.adopt(targets(1.0, 1.0, 1.0))
    picker.adopt(targets(1.0, 1.0)[1:])
    assert set(shares(picker, 100, seed=3)) == {"b"}
