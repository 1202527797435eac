"""Header field lines: validated once, remembered, looked up at the speed of a dict.

Owns the grammar of a field line (RFC 9110 section 5, RFC 9112 section 5) and which names are
special to a proxy. A validated line keeps its bytes, so that relaying it costs nothing.
"""

import re
from collections.abc import Iterable
from typing import Final

from router.errors import MALFORMED, HeadError

TOKEN_CHARS: Final = (
    b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)
_VALUE_CHARS: Final = bytes(c for c in range(256) if c == 9 or (c >= 32 and c != 127))

BARE_NEWLINE: Final = re.compile(rb"(?<!\r)\n")
"""For heads that have not ended: waiting for the end of one that is malformed helps nobody."""

_REMEMBERED_MAX_LINES: Final = 4096
_REMEMBERED_MAX_BYTES: Final = 160
_NEVER_REMEMBERED: Final = frozenset(
    (
        # these differ in nearly every message, or are secrets that should not outlive theirs
        b"authorization",
        b"cookie",
        b"etag",
        b"proxy-authorization",
        b"set-cookie",
        b"traceparent",
        b"x-api-key",
        b"x-request-id",
    )
)

OTHER_FORWARDED: Final = b"x-forwarded-*"
"""The name under which every `x-forwarded-` field but the three we write is found, together."""
_FORWARDED: Final = frozenset((b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"))

Fields = dict[bytes, bytes]
"""Lower-case name -> the line it came in; lines of a repeated name are joined by CRLF, in order."""


class FieldLines(dict[bytes, tuple[bytes, bytes]]):
    """Field line -> (lower-case name, line). A missing line is validated on the way in.

    Bounded by `_REMEMBERED_MAX_LINES` x `_REMEMBERED_MAX_BYTES`; emptied when full.
    Names in `hyphenated` are refused when written with underscores: CGI and WSGI servers take the
    two for one field.
    """

    __slots__ = ("_hyphenated",)

    def __init__(self, hyphenated: frozenset[bytes] = frozenset()) -> None:
        super().__init__()
        self._hyphenated = hyphenated

    def __missing__(self, line: bytes) -> tuple[bytes, bytes]:
        """Validate `line`.

        Raises:
            HeadError: it is not `token ":" value` of permitted bytes (this includes a folded line,
                space before the colon, bare CR or LF, NUL), or its name passes for a hyphenated
                one.
        """
        name, colon, value = line.partition(b":")
        if not name or not colon or name.translate(None, TOKEN_CHARS):
            raise HeadError(MALFORMED, "a header line is not 'name: value'")
        if value.translate(None, _VALUE_CHARS):
            raise HeadError(MALFORMED, f"header {name.decode()} has a control character")
        name = name.lower()
        if b"_" in name and name.replace(b"_", b"-") in self._hyphenated:
            raise HeadError(MALFORMED, f"header {name.decode()} passes for one with hyphens")
        if name.startswith(b"x-forwarded-") and name not in _FORWARDED:
            name = OTHER_FORWARDED
        entry = (name, line)
        if len(line) <= _REMEMBERED_MAX_BYTES and name not in _NEVER_REMEMBERED:
            if len(self) >= _REMEMBERED_MAX_LINES:
                self.clear()
            self[line] = entry
        return entry


def index(lines: list[bytes], known: FieldLines, once: frozenset[bytes]) -> Fields:
    """Fields of the validated `lines`, in order of first appearance.

    Raises:
        HeadError: a line is malformed, or a name in `once` appears twice.
    """
    fields = dict(map(known.__getitem__, lines))
    if len(fields) != len(lines):
        fields = _index_repeated(map(known.__getitem__, lines), once)
    return fields


def _index_repeated(entries: Iterable[tuple[bytes, bytes]], once: frozenset[bytes]) -> Fields:
    fields: Fields = {}
    for name, line in entries:
        earlier = fields.get(name)
        if earlier is None:
            fields[name] = line
        elif name in once:
            raise HeadError(MALFORMED, f"header {name.decode()} appears more than once")
        else:
            fields[name] = earlier + b"\r\n" + line
    return fields


def index_others(lines: bytes) -> Fields:
    """The fields of an `OTHER_FORWARDED` entry, each under its own name."""
    return _index_repeated(
        ((line.partition(b":")[0].lower(), line) for line in lines.split(b"\r\n")), frozenset()
    )


def value_of(name: bytes, line: bytes) -> bytes:
    """The value in a `Fields` entry; several are joined by `, ` (RFC 9110 section 5.3)."""
    if b"\r\n" in line:
        return b", ".join(values_of(name, line))
    return line[len(name) + 1 :].strip(b" \t")


def values_of(name: bytes, line: bytes) -> list[bytes]:
    """Every value in a `Fields` entry, in order."""
    start = len(name) + 1
    return [single[start:].strip(b" \t") for single in line.split(b"\r\n")]


def list_items(name: bytes, line: bytes) -> list[bytes]:
    """The lower-case members of a comma-separated field, without empty ones."""
    items = (item.strip(b" \t").lower() for item in value_of(name, line).split(b","))
    return [item for item in items if item]
