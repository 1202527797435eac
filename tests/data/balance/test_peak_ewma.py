from math import exp
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.data.balance.peak_ewma import DECAY_S, PeakEwma
from tests.data.balance.targets import Target, targets, work


def adopted(among: tuple[Target, ...]) -> PeakEwma[Target]:
    picker = PeakEwma[Target]()
    picker.adopt(among)
    return picker


def wins(picker: PeakEwma[Target], url: str, random: Random | None = None) -> bool:
    """Whether `url` is picked whenever two are compared."""
    random = random or Random(1)
    return {picker.pick(random.random, b"").url for _ in range(50)} == {url}


def test_the_faster_of_two_is_picked() -> None:
    a, b = among = targets(1, 1)
    picker = adopted(among)
    picker.observe(a, 0.2, 100.0)
    picker.observe(b, 0.1, 100.0)
    assert wins(picker, "b")


def test_a_faster_one_with_more_to_do_is_not() -> None:
    a, b = among = targets(1, 1)
    picker = adopted(among)
    picker.observe(a, 0.2, 100.0)
    picker.observe(b, 0.1, 100.0)
    b.in_flight = 2  # 0.1 x 3 against 0.2 x 1
    assert wins(picker, "a")


def test_a_heavier_one_may_be_slower() -> None:
    a, b = among = targets(1, 4)
    picker = adopted(among)
    picker.observe(a, 0.1, 100.0)
    picker.observe(b, 0.2, 100.0)
    picked = [picker.pick(Random(i).random, b"").url for i in range(100)]
    assert picked.count("a") < 10  # only when it is drawn twice, 4 of 100


def test_a_rise_counts_at_once_and_a_fall_slowly() -> None:
    a, b = among = targets(1, 1)
    picker = adopted(among)
    for i in range(100):
        picker.observe(a, 0.01, 100.0 + i / 100)
        picker.observe(b, 0.02, 100.0 + i / 100)
    assert wins(picker, "a")
    picker.observe(a, 1.0, 101.0)
    assert wins(picker, "b")
    picker.observe(a, 0.01, 101.1)
    picker.observe(b, 0.02, 101.1)
    assert wins(picker, "b")


@pytest.mark.parametrize("start_s", [0.0, 5.0, 1e6])
def test_a_peak_fades_and_the_endpoint_is_tried_again(start_s: float) -> None:
    a, b = among = targets(1, 1)
    picker = adopted(among)
    picker.observe(a, 1.0, start_s)
    seconds = 0
    while True:
        picker.observe(b, 0.1, start_s + seconds)
        if not wins(picker, "b"):
            break
        seconds += 1
    # 1.0 has faded to 0.1 after 10 s x ln 10
    assert seconds == 24 == int(DECAY_S * 2.302585) + 1


def test_an_unknown_endpoint_gets_one_request_until_it_answers() -> None:
    new, known = among = targets(1, 1)
    picker = adopted(among)
    picker.observe(known, 0.1, 100.0)
    known.in_flight = 50
    assert wins(picker, "a")
    new.in_flight = 1
    assert wins(picker, "b")
    picker.observe(new, 0.1, 101.0)
    assert wins(picker, "a")


def test_of_unknown_ones_that_are_busy_the_less_busy_is_picked() -> None:
    a, b = among = targets(1, 1)
    picker = adopted(among)
    a.in_flight, b.in_flight = 3, 2
    assert wins(picker, "b")


def test_an_endpoint_that_comes_back_is_unknown_and_the_others_are_not() -> None:
    a, b = among = targets(1, 1)
    picker = adopted(among)
    picker.observe(a, 0.1, 100.0)
    picker.observe(b, 9.0, 100.0)
    picker.adopt((a,))
    picker.observe(b, 9.0, 101.0)  # an answer that was on its way
    picker.adopt(among)
    assert wins(picker, "b")
    b.in_flight = 1
    assert wins(picker, "a")


def test_traffic_leaves_an_endpoint_that_gets_slow() -> None:
    among = targets(1, 1, 1)
    takes_s = {"a": 0.01, "b": 0.01, "c": 0.01}
    even = work(adopted(among), among, 6000, at_once=12, takes_s=takes_s)
    assert all(0.2 < share < 0.47 for share in even.values())
    slow = work(adopted(among), among, 6000, at_once=12, takes_s=takes_s | {"c": 0.1})
    assert slow["c"] < 0.04


def test_busy_endpoints_of_one_latency_share_by_weight() -> None:
    among = targets(1, 3)
    found = work(adopted(among), among, 20_000, at_once=64)
    assert found["b"] == pytest.approx(0.75, abs=0.1)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(0.0001, 100), st.floats(0, 3000)), min_size=1)
)
def test_latencies_are_as_if_each_had_been_averaged_by_itself(
    answers: list[tuple[int, float, float]],
) -> None:
    """Against the formula of the docstring, with clocks that stand still and leap."""
    among = targets(1, 1, 1)
    picker = adopted(among)
    expected: dict[str, tuple[float, float]] = {}
    now_s = 50.0
    for i, elapsed_s, pause_s in answers:
        now_s += pause_s
        target = among[i]
        latency_s, seen_s = expected.get(target.url, (0.0, now_s))
        kept = exp((seen_s - now_s) / DECAY_S)
        latency_s = max(elapsed_s, latency_s * kept + elapsed_s * (1 - kept))
        expected[target.url] = latency_s, now_s
        picker.observe(target, elapsed_s, now_s)
    last = among[answers[-1][0]]
    for target in among:
        if target.url in expected:
            latency_s, seen_s = expected[target.url]
            faded_s = latency_s * exp((seen_s - now_s) / DECAY_S)
            ratio = faded_s / expected[last.url][0]
            assert target.latency_s / last.latency_s == pytest.approx(ratio, rel=1e-6, abs=1e-30)
