"""Plain scalars and the environment."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.config.scalars import interpolate, resolve


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-12", -12),
        ("+3", 3),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("999999999999999999", 999999999999999999),
    ],
)
def test_json_values_are_what_they_are(text: str, value: object) -> None:
    found = resolve(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        *("on", "off", "yes", "no", "y", "N", "On", "OFF"),
        *("1:30", "190:20:30", "017", "0o17", "0x1F", "0b1", "1_000", "2024-01-01", "1.", "."),
        *("+", "-", "e3", ".inf", "-.inf", ".nan", "1e999", "10%", "250ms", "1e", "tRue", "="),
        "12345678901234567890",
    ],
)
def test_what_yaml_1_1_misreads_stays_text(text: str) -> None:
    assert resolve(text) == text


@given(st.text())
def test_a_number_is_finite_and_fits_64_bits(text: str) -> None:
    value = resolve(text)
    if isinstance(value, int | float):
        assert math.isfinite(value)
        assert isinstance(value, float) or abs(value) < 2**63


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("${A}", "x"),
        ("<${A}${A}>", "<xx>"),
        ("${EMPTY}", ""),
        ("${EMPTY:-d}", "d"),
        ("${NONE:-}", ""),
        ("${NONE:-a:-b}", "a:-b"),
        ("${A:-d}", "x"),
        ("$${A}", "${A}"),
        ("$$", "$"),
        ("$", "$"),
        ("^/a$", "^/a$"),
        ("$A", "$A"),
        ("${SELF}", "${A}"),
    ],
)
def test_variables_are_put_in_once(text: str, result: str) -> None:
    assert interpolate(text, {"A": "x", "EMPTY": "", "SELF": "${A}"}) == result


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(ValueError, match=r"^environment variable NONE is not set$"):
        interpolate("a ${NONE}", {})


@pytest.mark.parametrize("text", ["${", "${}", "${1A}", "${A-b}", "${A", "${A B}"])
def test_a_malformed_variable_says_what_is_right(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"write \$\{NAME\}, \$\{NAME:-default\}, or \$\$\{ for \$\{"
    ):
        interpolate(text, {"A": "x"})
