"""Bounds in a guard's YAML: a number, or a ratio to the old variant's.

Parsers in the manner of `router/units.py`: each takes what YAML yields and raises `ValueError`
whose message says what was found and what would be right.
"""

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Final

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from router.units import format_duration, format_share, parse_duration, parse_share

RATIO_MIN: Final = 0.1
RATIO_MAX: Final = 100.0
"""What lies outside is a slip of the pen: no version is wanted that is ten times better, and a
hundred times worse is no bound."""

_RATIO_PATTERN: Final = r"([0-9]{1,4}(?:\.[0-9]{1,4})?)x"
_NUMBER: Final = r"[0-9]+(?:\.[0-9]+)?"


@dataclass(frozen=True, slots=True)
class Bound:
    """At most `value` (a share, seconds, or a plain number), or `value` times the old variant's.

    `unit` is how `value` was written: `x` (a ratio), `%`, `s`, or nothing.
    """

    value: float
    unit: str

    @property
    def is_ratio(self) -> bool:
        """Whether it is relative to the old variant."""
        return self.unit == "x"

    def __str__(self) -> str:
        match self.unit:
            case "%":
                return format_share(self.value)
            case "s":
                return format_duration(self.value)
        return f"{self.value:g}{self.unit}"


def _ratio(value: object) -> Bound | None:
    """The ratio that `value` is, or None: it is none."""
    match = re.fullmatch(_RATIO_PATTERN, value) if isinstance(value, str) else None
    if match is None:
        return None
    ratio = float(Decimal(match[1]))
    if not RATIO_MIN <= ratio <= RATIO_MAX:
        raise ValueError(f"{value!r} is not a ratio between {RATIO_MIN:g}x and {RATIO_MAX:g}x")
    return Bound(ratio, "x")


def parse_rate_bound(value: object) -> Bound:
    """A bound of a rate from `1%`, `0.01` or `1.25x`.

    Raises:
        ValueError: `value` is none of these; it is a share of 0, which no number of requests can
            show to hold, or of 100 %, which bounds nothing; or the ratio is absurd.
    """
    if isinstance(value, Bound):
        return value
    if (ratio := _ratio(value)) is not None:
        return ratio
    try:
        share = parse_share(value)
    except ValueError:
        raise ValueError(
            f"{value!r} is no bound of a rate, write a share like 1%, or a ratio to the old "
            "variant's rate, like 1.25x"
        ) from None
    if share == 0:
        raise ValueError(
            f"{value!r} can never be shown to hold, write the smallest share that matters, like "
            "0.1%"
        )
    if share == 1:
        raise ValueError(f"{value!r} bounds nothing, write a share below 100%")
    return Bound(share, "%")


def parse_time_bound(value: object) -> Bound:
    """A bound of a time from `500ms` or `1.2x`.

    Raises:
        ValueError: `value` is neither, is 0, or the ratio is absurd.
    """
    if isinstance(value, Bound):
        return value
    if (ratio := _ratio(value)) is not None:
        return ratio
    try:
        seconds = parse_duration(value)
    except ValueError as error:
        if "longer than a year" in str(error):
            raise
        seconds = 0.0
    if seconds == 0:
        raise ValueError(
            f"{value!r} is no bound of a time, write a duration like 500ms, or a ratio to the old "
            "variant's time, like 1.2x"
        )
    return Bound(seconds, "s")


def parse_kpi_bound(value: object) -> Bound:
    """A bound of a KPI, which may be a rate, a time or a plain number: `1%`, `500ms`, `7`, `1.2x`.

    Raises:
        ValueError: `value` is none of these, or is not positive.
    """
    if isinstance(value, Bound):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value) and value > 0:
            return Bound(float(value), "")
    elif isinstance(value, str):
        is_share = value.endswith("%")
        return parse_rate_bound(value) if is_share else parse_time_bound(value)
    raise ValueError(
        f"{value!r} is no bound of a KPI, write a share like 1%, a duration like 500ms, a number "
        "above 0, or a ratio to the old variant's, like 1.2x"
    )


def _schema(units: str, description: str, **number: object) -> WithJsonSchema:
    text = {"type": "string", "pattern": f"^{_NUMBER}({units}|x)$"}
    return WithJsonSchema({"anyOf": [text, *([number] if number else [])], **_said(description)})


def _said(description: str) -> dict[str, str]:
    return {"description": description}


RateBound = Annotated[
    Bound,
    BeforeValidator(parse_rate_bound),
    PlainSerializer(str, return_type=str),
    _schema(
        "%",
        "a share, or a ratio to the old variant's rate: 1%, 1.25x",
        type="number",
        minimum=0,
        maximum=1,
    ),
]
"""Most of a rate."""

TimeBound = Annotated[
    Bound,
    BeforeValidator(parse_time_bound),
    PlainSerializer(str, return_type=str),
    _schema("us|ms|s|m|h|d", "a duration, or a ratio to the old variant's time: 500ms, 1.2x"),
]
"""Most of a time."""

KpiBound = Annotated[
    Bound,
    BeforeValidator(parse_kpi_bound),
    PlainSerializer(str, return_type=str),
    _schema(
        "%|us|ms|s|m|h|d",
        "a share, a duration, a number, or a ratio to the old variant's: 1%, 500ms, 7, 1.2x",
        type="number",
        exclusiveMinimum=0,
    ),
]
"""Most of a KPI."""
