from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.data.balance.round_robin import RoundRobin
from tests.data.balance.targets import WEIGHTS, Target, picked, targets


def adopted(*weights: float, start: float = 0.0) -> RoundRobin[Target]:
    picker = RoundRobin[Target](start)
    picker.adopt(targets(*weights))
    return picker


def never() -> float:
    raise AssertionError("nothing is drawn")


@pytest.mark.parametrize(
    ("weights", "turns"),
    [
        ((1,), "aaaa"),
        ((1, 1, 1), "abcabcabc"),
        ((2, 1), "abaaba"),
        ((3, 1), "aabaaaba"),
        ((5, 1, 1), "abaaacaabaaaca"),
        ((4, 3, 2), "abcabacbaabcabacba"),
        ((0.1, 0.1), "abab"),
    ],
)
def test_turns_are_spread_evenly(weights: tuple[float, ...], turns: str) -> None:
    assert picked(adopted(*weights), len(turns), never) == turns


@pytest.mark.parametrize(("start", "turns"), [(0.0, "abc"), (0.4, "bca"), (0.99, "abc")])
def test_workers_start_at_different_places(start: float, turns: str) -> None:
    assert picked(adopted(1, 1, 1, start=start), 3, never) == turns


def test_starts_are_spread_over_the_endpoints() -> None:
    firsts = Counter(picked(adopted(1, 1, 1, 1, start=i / 100), 1, never) for i in range(100))
    assert firsts == {"a": 25, "b": 25, "c": 25, "d": 25}


@given(WEIGHTS, st.floats(0, 1, exclude_max=True))
def test_every_endpoint_stays_near_its_share(weights: list[float], start: float) -> None:
    """In any span of virtual time those of one weight are at most one turn ahead or behind."""
    picker = adopted(*weights, start=start)
    among = targets(*weights)
    total = sum(weights)
    bound = 1 + len(set(weights))
    counts: Counter[str] = Counter()
    for turn in range(1, 300):
        counts[picker.pick(never, b"").url] += 1
        for target in among:
            assert abs(counts[target.url] - turn * target.weight / total) < bound


def test_an_endpoint_that_leaves_and_returns_keeps_the_others_in_turn() -> None:
    picker = adopted(1, 1, 1, 1)
    all_four = targets(1, 1, 1, 1)
    assert picked(picker, 2, never) == "ab"
    picker.adopt(all_four[:1] + all_four[2:])
    assert picked(picker, 3, never) == "cda"
    picker.adopt(all_four)
    assert Counter(picked(picker, 8, never)) == {"a": 2, "b": 2, "c": 2, "d": 2}


def test_changes_of_weights_do_not_starve_who_is_last() -> None:
    """An endpoint in slow start makes the pool adopt again and again."""
    picker = adopted(1, 1, 1)
    seen: Counter[str] = Counter()
    for step in range(1, 30):
        picker.adopt(targets(1, 1, step / 30))
        seen.update(picked(picker, 1, never))
    assert min(seen["a"], seen["b"]) >= 8
    assert seen["c"] >= 2


def test_all_may_leave_and_come_back() -> None:
    picker = adopted(1, 1)
    picker.adopt(())
    picker.adopt(targets(1, 1))
    assert sorted(picked(picker, 2, never)) == ["a", "b"]
