"""What can be wrong with a config, and where: mistakes leave this package in no other form."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from router.errors import PointsmanError

Path = tuple[str | int, ...]
"""Keys and indexes from the root of the document to a value."""

_MESSAGE_MAX_CHARS: Final = 400
_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake, or one thing worth a look.

    `line` and `column` count from 1; both are 0 when the file as a whole is meant. `path` is the
    YAML path (`routes[0].policy.weight`), empty for the root. `message` says what was found,
    `hint` what would be right; `hint` may be empty.
    """

    source: str
    line: int
    column: int
    path: str
    message: str
    hint: str = ""
    is_warning: bool = False

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        path = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}: {path}{_printable(self.message)}{hint}"


class ConfigError(PointsmanError):
    """A config that cannot be used. `problems` are all that were found, in the file's order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem whose place is still a path. `at_key`: the key is at fault, not its value."""

    path: Path
    message: str
    hint: str = ""
    at_key: bool = False
    is_warning: bool = False


def render_path(path: Path) -> str:
    """`routes[0].match.path`; a key that is not a plain word is quoted: `backends."v1.2"`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN_KEY.fullmatch(step):
            text += f".{step}"
        else:
            text += f'."{_printable(step)}"'
    return text.removeprefix(".")


def _printable(text: str) -> str:
    """One line of bounded length, safe for a terminal."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return safe if len(safe) <= _MESSAGE_MAX_CHARS else safe[: _MESSAGE_MAX_CHARS - 3] + "..."
