from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.data.balance.least_request import LeastRequest
from tests.data.balance.targets import WEIGHTS, Target, shares, targets, work


def adopted(among: tuple[Target, ...]) -> LeastRequest[Target]:
    picker = LeastRequest[Target]()
    picker.adopt(among)
    return picker


def test_an_idle_backend_is_shared_by_weight() -> None:
    found = shares(adopted(targets(1.0, 2.0, 5.0)), 8000, seed=1)
    # the first drawn is taken: five standard deviations of a binomial
    assert found == {
        "a": pytest.approx(1 / 8, abs=0.019),
        "b": pytest.approx(2 / 8, abs=0.025),
        "c": pytest.approx(5 / 8, abs=0.028),
    }


def test_of_two_that_are_equally_busy_the_first_drawn_is_taken() -> None:
    among = Target("a", 1.0, 2), Target("b", 2.0, 4)
    draws = iter([0.0, 0.9, 0.9, 0.0])
    picker = adopted(among)
    assert [picker.pick(lambda: next(draws), b"").url for _ in range(2)] == ["a", "b"]


@pytest.mark.parametrize(("at_once", "within"), [(2, 0.08), (8, 0.05), (64, 0.03)])
def test_a_busy_backend_is_shared_by_weight(at_once: int, within: float) -> None:
    among = targets(1.0, 1.0, 3.0)
    found = work(adopted(among), among, 20_000, at_once=at_once)
    # with little to do a light one that is idle is preferred, see `Draw.two`
    assert found == {
        "a": pytest.approx(0.2, abs=within),
        "b": pytest.approx(0.2, abs=within),
        "c": pytest.approx(0.6, abs=within),
    }


@given(
    st.lists(st.tuples(st.sampled_from([0.5, 1.0, 2.0]), st.integers(0, 9)), min_size=2),
    st.randoms(use_true_random=False),
)
def test_the_busiest_for_its_weight_is_taken_only_when_drawn_twice(
    ends: list[tuple[float, int]], random: object
) -> None:
    among = tuple(Target(f"{i}", *end) for i, end in enumerate(ends))
    busiest = max(among, key=lambda target: target.in_flight / target.weight)
    drawn: list[float] = []

    def draw() -> float:
        drawn.append(random.random())  # type: ignore[attr-defined]  # hypothesis types it as object
        return drawn[-1]

    one = adopted(among).pick(draw, b"")
    assert one in among
    is_alone = sum(t.in_flight / t.weight == busiest.in_flight / busiest.weight for t in among) == 1
    if one is busiest and is_alone:
        assert len(drawn) == 2 and len({target.weight for target in among}) > 1


def test_an_endpoint_ten_times_as_slow_gets_a_tenth_as_much() -> None:
    among = targets(1.0, 1.0)
    found = work(adopted(among), among, 20_000, at_once=16, takes_s={"a": 10.0, "b": 1.0})
    assert found["a"] == pytest.approx(1 / 11, abs=0.02)


def test_a_light_endpoint_never_gets_more_than_twice_its_share() -> None:
    """Though it is idle nearly always, and the other never."""
    among = targets(1.0, 100.0)
    found = work(adopted(among), among, 20_000, at_once=8)
    assert 0 < found["a"] <= 2 / 101 + 0.005  # five standard deviations of binomial(20000, 0.02)


@given(WEIGHTS, st.floats(0, 1, exclude_max=True))
def test_whatever_the_weights_one_of_the_targets_is_picked(weights: list[float], u: float) -> None:
    among = targets(*weights)
    assert adopted(among).pick(lambda: u, b"") in among


def test_the_maximum_of_many_is_near_the_mean() -> None:
    """Azar et al.: with two choices log log n above it; at random about log n."""
    among = targets(*[1.0] * 100)
    picker = adopted(among)
    random = Random(4).random
    for _ in range(1000):
        picker.pick(random, b"").in_flight += 1
    assert max(target.in_flight for target in among) <= 13
