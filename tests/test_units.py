"""Durations, sizes and shares."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.units import (
    format_duration,
    format_share,
    format_size,
    parse_duration,
    parse_share,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("10m", 600.0),
        ("1h", 3600.0),
        ("366d", 366 * 86400.0),
        ("7us", 7e-6),
        ("0s", 0.0),
        (0, 0.0),
    ],
)
def test_a_duration_is_read_in_seconds(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "value",
    ["fast", "10", 10, 1.5, "1 s", "-1s", "1S", "1.s", ".5s", "", None, True, False, [], "1e3s"],
)
def test_what_has_no_unit_is_no_duration(value: object) -> None:
    with pytest.raises(
        ValueError, match="is not a duration, write a number and us, ms, s, m, h or d"
    ):
        parse_duration(value)


def test_a_duration_is_at_most_a_year() -> None:
    with pytest.raises(ValueError, match="'367d' is longer than a year"):
        parse_duration("367d")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64KiB", 65536),
        ("1.5MB", 1_500_000),
        ("1GiB", 2**30),
        ("0B", 0),
        (17, 17),
        ("2GB", 2 * 10**9),
    ],
)
def test_a_size_is_read_in_bytes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("value", ["64", "64K", "64kib", -1, 1.5, True, None, "big", "1 MiB"])
def test_what_has_no_unit_is_no_size_unless_it_is_a_number(value: object) -> None:
    with pytest.raises(ValueError, match="is not a size, write a number and B"):
        parse_size(value)


def test_a_size_is_whole_bytes() -> None:
    with pytest.raises(ValueError, match=r"'1\.0001KiB' is not a whole number of bytes"):
        parse_size("1.0001KiB")


@pytest.mark.parametrize(
    ("text", "share"),
    [("10%", 0.1), ("0.5%", 0.005), ("100%", 1.0), (0.25, 0.25), (1, 1.0), (0, 0.0)],
)
def test_a_share_is_a_percentage_or_a_number_up_to_one(text: object, share: float) -> None:
    assert parse_share(text) == share


@pytest.mark.parametrize("value", ["0.1", "ten", True, None, float("nan"), float("inf"), "%"])
def test_anything_else_is_no_share(value: object) -> None:
    with pytest.raises(ValueError, match="is not a share, write a percentage like 10% or a number"):
        parse_share(value)


@pytest.mark.parametrize("value", ["101%", 10, -0.1])
def test_a_share_lies_between_nothing_and_all(value: object) -> None:
    with pytest.raises(ValueError, match="is not a share between 0% and 100%"):
        parse_share(value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (0.25, "250ms"), (1.5, "1500ms"), (600.0, "10m"), (75.0, "75s"), (86400.0, "1d")],
)
def test_a_duration_is_shown_in_the_largest_unit_that_leaves_a_whole(
    seconds: float, text: str
) -> None:
    assert format_duration(seconds) == text


@given(st.integers(0, 366 * 86_400_000))
def test_a_shown_duration_reads_as_itself(milliseconds: int) -> None:
    seconds = parse_duration(f"{milliseconds}ms")
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 2**50))
def test_a_shown_size_reads_as_itself(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.integers(0, 10_000))
def test_a_shown_share_reads_as_itself(basis_points: int) -> None:
    share = basis_points / 10_000
    assert parse_share(format_share(share)) == pytest.approx(share, abs=1e-12)
