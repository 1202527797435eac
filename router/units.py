"""YAML scalars that every part writes alike: durations, sizes, shares, regular expressions.

Each parser takes what YAML yields (text, or a number where no unit is needed), returns a plain
number, and raises `ValueError` whose message says what was found and what would be right.
The `Annotated` types at the end are what the config models use.
"""

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

_DURATION_UNITS_S: Final[Mapping[str, Decimal]] = {
    "us": Decimal("0.000001"),
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_SIZE_UNITS_BYTES: Final[Mapping[str, int]] = {
    "B": 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}
_DURATION_PATTERN: Final = r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h|d)"
_SIZE_PATTERN: Final = r"([0-9]+(?:\.[0-9]+)?)(B|KB|MB|GB|KiB|MiB|GiB)"
_SHARE_PATTERN: Final = r"([0-9]+(?:\.[0-9]+)?)%"
_DURATION_MAX_S: Final = 366 * 86400.0


def parse_duration(value: object) -> float:
    """Seconds from `250ms`, `1.5s`, `10m`, `1h` or `0`.

    Raises:
        ValueError: `value` is not text of that form, is a bare number other than 0 (its unit
            would be a guess), or is longer than a year.
    """
    if value == 0 and not isinstance(value, bool):
        return 0.0
    match = re.fullmatch(_DURATION_PATTERN, value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            f"{value!r} is not a duration, write a number and us, ms, s, m, h or d, like 250ms"
        )
    seconds = float(Decimal(match[1]) * _DURATION_UNITS_S[match[2]])
    if seconds > _DURATION_MAX_S:
        raise ValueError(f"{value!r} is longer than a year")
    return seconds


def parse_size(value: object) -> int:
    """Bytes from `64KiB`, `1.5MB` or a bare whole number of bytes.

    Raises:
        ValueError: `value` is not of that form or is not a whole number of bytes.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = re.fullmatch(_SIZE_PATTERN, value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            f"{value!r} is not a size, write a number and B, KB, MB, GB, KiB, MiB or GiB, "
            "like 64KiB"
        )
    size = Decimal(match[1]) * _SIZE_UNITS_BYTES[match[2]]
    if size != int(size):
        raise ValueError(f"{value!r} is not a whole number of bytes")
    return int(size)


def parse_share(value: object) -> float:
    """A share, 0..1, from `10%` or `0.1`.

    Raises:
        ValueError: `value` is neither, or lies outside 0..1.
    """
    if isinstance(value, str) and (match := re.fullmatch(_SHARE_PATTERN, value)):
        share = float(Decimal(match[1]) / 100)
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        share = float(value)
    else:
        raise ValueError(
            f"{value!r} is not a share, write a percentage like 10% or a number from 0 to 1"
        )
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"{value!r} is not a share between 0% and 100%")
    return share


def parse_regex(value: str) -> str:
    """`value` as it is.

    Raises:
        ValueError: it is no regular expression.
    """
    try:
        re.compile(value.encode("utf-8"))
    # OverflowError: a repeat count past 2**32. RecursionError: nested too deeply.
    except (re.error, OverflowError, RecursionError, FutureWarning) as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from None
    return value


def format_duration(seconds: float) -> str:
    """`10m` for 600.0: the largest unit that leaves a whole number; `0s` for 0."""
    if seconds == 0:
        return "0s"
    exact = Decimal(repr(seconds))
    for unit, unit_s in reversed(list(_DURATION_UNITS_S.items())):
        if exact % unit_s == 0:
            return f"{int(exact / unit_s)}{unit}"
    return f"{exact / _DURATION_UNITS_S['us']:f}us"


def format_size(size: int) -> str:
    """`64KiB` for 65536: the largest binary unit that leaves a whole number."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _SIZE_UNITS_BYTES[unit] == 0:
            return f"{size // _SIZE_UNITS_BYTES[unit]}{unit}"
    return f"{size}B"


def format_share(share: float) -> str:
    """`10%` for 0.1, with at most four decimals."""
    return f"{share * 100:.4f}".rstrip("0").rstrip(".") + "%"


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": f"^{_DURATION_PATTERN}$"}, {"const": 0}],
            "description": "a duration: 250ms, 30s, 10m, 1h",
        }
    ),
]
"""Seconds."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": f"^{_SIZE_PATTERN}$"},
                {"type": "integer", "minimum": 0},
            ],
            "description": "a size: 64KiB, 1MiB, or a number of bytes",
        }
    ),
]
"""Bytes."""

Share = Annotated[
    float,
    BeforeValidator(parse_share),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": f"^{_SHARE_PATTERN}$"},
                {"type": "number", "minimum": 0, "maximum": 1},
            ],
            "description": "a share: 10% or 0.1",
        }
    ),
]
"""0..1."""

Regex = Annotated[str, AfterValidator(parse_regex)]
"""A regular expression over bytes."""
