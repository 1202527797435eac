import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from router.experiments.mismatch import FLAG_AT, Split, combined, e_value

HALF = {"a": 0.5, "b": 0.5}


def split(a: int, b: int, share: float = 0.5) -> Split:
    return Split({"a": a, "b": b}, {"a": share, "b": 1.0 - share})


def test_one_version_is_the_test_of_lindon_and_malek() -> None:
    shares = (0.5, 0.3, 0.2)
    counts = (520, 280, 205)
    theirs = stats.dirichlet_multinomial.logpmf(counts, [100 * p for p in shares], sum(counts))
    theirs -= stats.multinomial.logpmf(counts, sum(counts), shares)
    names = "abc"
    mine = e_value(
        [Split(dict(zip(names, counts, strict=True)), dict(zip(names, shares, strict=True)))]
    )
    assert mine == pytest.approx(math.exp(theirs))


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=6))
def test_versions_with_the_same_weights_are_as_one(parts: list[tuple[int, int]]) -> None:
    whole = split(sum(a for a, _ in parts), sum(b for _, b in parts), 0.3)
    assert e_value([split(a, b, 0.3) for a, b in parts]) == pytest.approx(e_value([whole]))


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90)), min_size=1, max_size=5))
def test_the_names_of_variants_mean_nothing(parts: list[tuple[int, int]]) -> None:
    there = e_value([split(a, b, 0.2) for a, b in parts])
    back = e_value([split(b, a, 0.8) for a, b in parts])
    assert there == pytest.approx(back)


def test_without_a_mismatch_the_e_value_is_one_on_average_whatever_the_weights() -> None:
    expected = 0.0
    for first, second in itertools.product(range(9), range(7)):
        chance = stats.binom.pmf(first, 8, 0.5) * stats.binom.pmf(second, 6, 0.9)
        expected += chance * e_value([split(first, 8 - first), split(second, 6 - second, 0.9)])
    assert expected == pytest.approx(1.0)


def test_a_mismatch_is_found_though_the_weights_change_all_the_time() -> None:
    shares = itertools.cycle([0.5, 0.8, 0.2])
    splits = []
    for share in itertools.islice(shares, 60):
        odds = 1.15 * share / (1.0 - share)  # a gets 15 % too many
        a = round(300 * odds / (1.0 + odds))
        splits.append(split(a, 300 - a, share))
    assert e_value(splits) >= FLAG_AT
    assert e_value([split(round(300 * s.shares["a"]), 300 - round(300 * s.shares["a"]),
                          s.shares["a"]) for s in splits]) < 1.0  # fmt: skip


def test_a_variant_of_share_zero_counts_nowhere() -> None:
    drained = Split({"a": 50, "b": 50, "c": 900}, {"a": 0.5, "b": 0.5, "c": 0.0})
    assert e_value([drained]) == e_value([split(50, 50)])


def test_variants_may_come_and_go() -> None:
    both = Split({"a": 500, "b": 500}, HALF)
    three = Split({"a": 450, "b": 450, "c": 100}, {"a": 0.45, "b": 0.45, "c": 0.1})
    assert e_value([both, three, both]) < 1.0
    assert e_value([both, Split({"a": 450, "b": 250, "c": 300}, three.shares)]) > FLAG_AT


def test_shares_need_not_sum_to_one() -> None:
    assert e_value([Split({"a": 10, "b": 30}, {"a": 1.0, "b": 3.0})]) == e_value(
        [split(10, 30, 0.25)]
    )


def test_no_evidence_is_one_and_endless_evidence_is_finite() -> None:
    assert e_value([]) == 1.0
    assert math.isfinite(e_value([split(10**6, 0)]))


def test_cells_are_averaged_so_that_one_of_many_is_not_hidden() -> None:
    assert combined([]) == 1.0
    assert combined([4000.0, 0.01, 0.01, 0.01]) > FLAG_AT
