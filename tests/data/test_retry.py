"""The rules of one backend, without a network."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.config.retry import Retry
from router.data.retry import UNBUDGETED, Retries

ALWAYS = ["unsent", "stale", "endpoint-down"]


def denial(retries: Retries, reason: str, attempts: int = 1, **facts: int | None) -> str | None:
    may_repeat = bool(facts.get("may_repeat", True))
    held_bytes = facts.get("held_bytes", 100)
    return retries.denial(reason, attempts, may_repeat=may_repeat, held_bytes=held_bytes)


# what is worth another attempt


def test_what_is_listed_is_worth_another_attempt_and_nothing_else() -> None:
    retries = Retries(Retry(on=("connect", "timeout", 429, 500)))
    reasons = ["connect", "reset", "timeout", "429", "500", "502", "503", "malformed", "idle"]
    assert [reason for reason in reasons if retries.covers(reason)] == [
        "connect",
        "timeout",
        "429",
        "500",
    ]


@pytest.mark.parametrize("reason", ALWAYS)
def test_what_tells_nothing_of_the_answer_need_not_be_listed(reason: str) -> None:
    assert Retries(Retry(on=())).covers(reason)


# what forbids it


@pytest.mark.parametrize("reason", ["connect", "unsent"])
def test_what_was_not_sent_may_go_again_whatever_the_method(reason: str) -> None:
    assert denial(Retries(Retry()), reason, may_repeat=False) is None


@pytest.mark.parametrize("reason", ["stale", "reset", "timeout", "503", "endpoint-down"])
def test_what_was_sent_may_go_again_only_when_it_may_be_acted_on_twice(reason: str) -> None:
    assert denial(Retries(Retry()), reason, may_repeat=False) == "method"
    assert denial(Retries(Retry()), reason, may_repeat=True) is None


@pytest.mark.parametrize("reason", ["connect", "reset", "stale", "endpoint-down"])
def test_the_number_of_attempts_bounds_every_reason(reason: str) -> None:
    retries = Retries(Retry(attempts=2))
    assert denial(retries, reason, 1) is None
    assert denial(retries, reason, 2) == "attempts"
    assert denial(Retries(Retry(attempts=1)), reason, 1) == "attempts"


def test_what_is_too_large_to_keep_is_not_sent_again() -> None:
    retries = Retries(Retry(buffer=1000))
    assert denial(retries, "reset", held_bytes=1000) is None
    assert denial(retries, "reset", held_bytes=1001) == "buffer"
    assert denial(retries, "connect", held_bytes=1001) is None  # all of it is at hand
    assert denial(retries, "unsent", held_bytes=None) == "buffer"  # but this is not


# the budget


@pytest.mark.parametrize(
    ("share", "least", "in_flight", "places"),
    [(0.2, 3, 1, 3), (0.2, 3, 15, 3), (0.2, 3, 20, 4), (0.2, 3, 104, 20), (0.5, 0, 1, 0),
     (0.0, 2, 1000, 2), (1.0, 0, 7, 7)],
)  # fmt: skip
def test_the_budget_is_a_share_of_what_is_in_flight_and_at_least_a_few(
    share: float, least: int, in_flight: int, places: int
) -> None:
    retries = Retries(Retry(budget=share, budget_min=least))
    taken = [retries.take(in_flight) for _ in range(places + 3)]
    assert taken == [True] * places + [False] * 3
    assert retries.in_progress == places


def test_a_place_that_is_given_back_is_there_for_the_next() -> None:
    retries = Retries(Retry(budget_min=1))
    assert retries.take(1)
    assert not retries.take(1)
    retries.give_back()
    assert retries.take(1)
    assert repr(retries) == "<Retries [1 in progress]>"


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 500))))
def test_the_budget_is_never_exceeded_nor_negative(steps: list[tuple[bool, int]]) -> None:
    retries = Retries(Retry())
    taken = 0
    for is_taking, in_flight in steps:
        if is_taking:
            was_allowed = retries.take(in_flight)
            assert was_allowed == (taken < max(3, int(0.2 * in_flight)))
            taken += was_allowed
        elif taken:
            retries.give_back()
            taken -= 1
        assert retries.in_progress == taken >= 0


def test_what_costs_the_backend_no_work_needs_no_place() -> None:
    assert frozenset(("connect", "unsent", "stale", "endpoint-down")) == UNBUDGETED


# waiting


def test_waits_are_drawn_from_zero_to_a_bound_that_doubles() -> None:
    retries = Retries(Retry(backoff="10ms", backoff_max="50ms"))
    longest = [retries.wait_s(number, 1.0) for number in range(1, 6)]
    assert longest == pytest.approx([0.01, 0.02, 0.04, 0.05, 0.05])
    assert retries.wait_s(3, 0.0) == 0.0
    assert retries.wait_s(3, 0.5) == pytest.approx(0.02)


def test_requests_that_failed_together_do_not_come_back_together() -> None:
    retries, random = Retries(Retry()), Random(5)
    waits = sorted(retries.wait_s(1, random.random()) for _ in range(1000))
    # uniform on 0..25 ms: the largest gap of 1,000 is about 7 times the mean one of 25 us
    assert max(b - a for a, b in pairwise(waits)) < 25 * 0.025 / 1000
