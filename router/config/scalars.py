"""Plain YAML scalars and `${...}`: from the text in the file to a value.

YAML 1.1 reads `off`, `1:30`, `017` and `2024-01-01` as something else than what was written. Here a
plain scalar is what it is in JSON (RFC 8259 section 6 for numbers), or null, or text:

1. `true`/`false`, in the three spellings of the YAML 1.2 core schema (section 10.3.2).
2. `null`, `~` or nothing at all.
3. A decimal number without leading zeros that fits 64 bits; one that does not stays text.
4. Everything else, and everything in quotes, is text.
"""

import math
import re
from collections.abc import Mapping
from typing import Final

Scalar = str | int | float | bool | None

_WORDS: Final[Mapping[str, bool | None]] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
}
_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT: Final = re.compile(
    r"[-+]?(?:0|[1-9][0-9]{0,17})?(?:\.[0-9]{1,30})?(?:[eE][-+]?[0-9]{1,3})?"
)
_DOLLAR: Final = re.compile(
    r"\$\$|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<bad>\$\{)"
)


def resolve(text: str) -> Scalar:
    """The value of a plain (unquoted) scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and text[-1].isdigit():
        number = float(text)
        return number if math.isfinite(number) else text
    return text


def interpolate(text: str, env: Mapping[str, str]) -> str:
    """`text` with `${NAME}` and `${NAME:-default}` replaced, and `$$` as `$`.

    As in a shell the default also stands in for an empty variable. A `$` before anything else is
    itself, so that regular expressions need no care.

    Raises:
        ValueError: a variable without default is not set, or `${` begins nothing of that form.
    """

    def replacement(match: re.Match[str]) -> str:
        if match["bad"]:
            raise ValueError(
                "${ begins no variable, write ${NAME}, ${NAME:-default}, or $${ for ${"
            )
        name, default = match["name"], match["default"]
        if name is None:
            return "$"
        if default is not None:
            return env.get(name) or default
        if name not in env:
            raise ValueError(f"environment variable {name} is not set")
        return env[name]

    return _DOLLAR.sub(replacement, text)
