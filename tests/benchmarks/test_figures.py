import pytest

from benchmarks.figures import Spread, paired_ratios, quantile, short, table


@pytest.mark.parametrize(("q", "expected"), [(0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100)])
def test_a_quantile_is_the_nearest_rank(q: float, expected: float) -> None:
    assert quantile(list(range(1, 101)), q) == expected


def test_a_quantile_of_one_value_is_that_value() -> None:
    assert quantile([7.0], 0.001) == 7.0


@pytest.mark.parametrize(("values", "q"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
def test_a_quantile_of_nothing_or_beyond_its_range_is_refused(
    values: list[float], q: float
) -> None:
    with pytest.raises(ValueError, match="no quantile"):
        quantile(values, q)


def test_a_spread_shows_the_median_between_smallest_and_largest() -> None:
    assert Spread.of([3.0, 1.0, 20.0]).show(short) == "3 (1…20)"


def test_ratios_are_taken_round_by_round() -> None:
    assert paired_ratios([10.0, 100.0, 30.0], [10.0, 50.0, 10.0]) == Spread(2.0, 1.0, 3.0)


def test_ratios_of_unequal_numbers_of_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_ratios([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.1234, "0.123"),
        (21.44, "21.4"),
        (99.96, "100"),
        (1234.4, "1234"),
        (9999.6, "10000"),
        (10_000, "10k"),
        (65_812, "65.8k"),
        (999_499, "999k"),
        (2_000_000, "2000k"),
    ],
)
def test_numbers_are_shown_with_three_digits(value: float, expected: str) -> None:
    assert short(value) == expected


def test_a_table_is_aligned_markdown() -> None:
    assert table(["proxy", "µs"], [["a", "1.5"], ["longer", "20"]]) == (
        "| proxy  |  µs |\n|--------|----:|\n| a      | 1.5 |\n| longer |  20 |"
    )
