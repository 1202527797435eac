"""Conditions on a request: on a header, a query parameter, a cookie, the path or the method.

Owns what a condition means, and which of two takes all that the other takes. It must not know what
follows from one (`segments.py`). Values are bytes as they came, but for a query parameter, which is
decoded.

A regular expression is the operator's own. It sees no more than `REGEX_MAX_BYTES` of what a client
sent, so one that backtracks with the square of the length is bounded; one with nested repetitions
(`(a+)+`) is not, and has to be written with possessive ones (`(a++)++`).
"""

import re
from collections.abc import Callable
from math import inf
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from router.messages import Request
from router.policies.sticky import CookieName, HeaderName
from router.strict import Model
from router.units import parse_regex

CONDITIONS_MAX: Final = 8
VALUES_MAX: Final = 1000
"""Values in one `in`: countries, tenants. More belong in a header that the client's side sets."""
REGEX_MAX_BYTES: Final = 1024
"""A longer value matches no regular expression."""

_NUMBER: Final = re.compile(rb"[+-]?[0-9]{1,18}(?:\.[0-9]{1,18})?")
_SUBJECTS: Final = ("header", "query", "cookie", "path", "method")
_TESTS: Final = ("exact", "among", "range", "prefix", "regex", "present")

Text = Annotated[str, Field(strict=True, max_length=REGEX_MAX_BYTES)]
QueryName = Annotated[str, Field(min_length=1, max_length=128)]
_Bound = Annotated[float, Field(strict=True, allow_inf_nan=False)] | None

Read = Callable[[Request], bytes | None]


class Subject(Model):
    """What of a request is looked at: exactly one of `header`, `query`, `cookie`, `path`,
    `method`."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": [subject]} for subject in _SUBJECTS]}
    )

    header: HeaderName | None = None
    """The value of this request header."""
    query: QueryName | None = None
    """The first query parameter of this name, decoded."""
    cookie: CookieName | None = None
    """The first cookie of this name."""
    path: Literal[True] | None = None
    """The path, as it came."""
    method: Literal[True] | None = None
    """The method."""

    @model_validator(mode="after")
    def _one_subject(self) -> "Subject":
        if sum(getattr(self, subject) is not None for subject in _SUBJECTS) != 1:
            raise ValueError(f"a condition is on exactly one of {', '.join(_SUBJECTS)}")
        return self

    @property
    def subject(self) -> tuple[str, object]:
        """Equal for conditions on the same thing."""
        return next((name, v) for name in _SUBJECTS if (v := getattr(self, name)) is not None)

    def reader(self) -> Read:
        """A function from a request to what is looked at, or None where it is missing."""
        if self.header is not None:
            return _from_header(self.header.encode())
        if self.query is not None:
            return _from_query(self.query.encode())
        if self.cookie is not None:
            return _from_cookie(self.cookie.encode())
        return _path if self.path else _method


class When(Subject):
    """One condition: what of the request, and exactly one test on its value."""

    exact: Text | None = None
    """Is the whole value."""
    among: Annotated[
        tuple[Text, ...] | None, Field(alias="in", min_length=1, max_length=VALUES_MAX)
    ] = None
    """Is one of these."""
    range: tuple[_Bound, _Bound] | None = None
    """Is a decimal number from the first to below the second; null is no bound."""
    prefix: Annotated[Text, Field(min_length=1)] | None = None
    """Begins with it."""
    regex: Annotated[Text, AfterValidator(parse_regex)] | None = None
    """Matches the whole value, if that is no longer than 1 KiB."""
    present: Annotated[bool, Field(strict=True)] | None = None
    """true: is there, with any value. false: is not there."""

    @model_validator(mode="after")
    def _one_test(self) -> "When":
        if sum(getattr(self, test) is not None for test in _TESTS) != 1:
            raise ValueError("a condition has one of exact, in, range, prefix, regex, present")
        if self.range is not None:
            low, high = _bounds(self.range)
            if not low < high:
                raise ValueError(f"range [{low:g}, {high:g}] is empty, the first must be less")
        return self

    @property
    def values(self) -> frozenset[bytes] | None:
        """All values for which it holds, or None: they cannot be listed."""
        if self.exact is not None:
            return frozenset((self.exact.encode(),))
        return None if self.among is None else frozenset(one.encode() for one in self.among)

    def test(self) -> Callable[[bytes | None], bool]:
        """A function from a value to whether it fits."""
        values = self.values
        if values is not None:
            return values.__contains__
        if self.prefix is not None:
            prefix = self.prefix.encode()
            return lambda value: value is not None and value.startswith(prefix)
        if self.regex is not None:
            return _matches(re.compile(self.regex.encode()))
        if self.range is not None:
            return _lies_in(*_bounds(self.range))
        is_present = self.present is True
        return lambda value: (value is not None) is is_present

    def covers(self, other: "When") -> bool:
        """Whether it surely holds for every request for which `other` does."""
        if self._is_always():
            return True
        if self.subject != other.subject:
            return False
        if self._is_any_value():
            return other.present is not False
        if other.values is not None:
            return all(map(self.test(), other.values))
        if self.prefix is not None and other.prefix is not None:
            return other.prefix.startswith(self.prefix)
        if self.range is not None and other.range is not None:
            (low, high), (other_low, other_high) = _bounds(self.range), _bounds(other.range)
            return low <= other_low and other_high <= high
        mine, others = ((w.range, w.prefix, w.regex, w.present) for w in (self, other))
        return self.values == other.values and mine == others

    def _is_always(self) -> bool:
        is_there = self.path is not None or self.method is not None
        return is_there and (self._is_any_value() or (self.path is True and self.prefix == "/"))

    def _is_any_value(self) -> bool:
        return self.present is True or self.regex == ".*"


def _listed(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


Conditions = Annotated[
    tuple[When, ...],
    BeforeValidator(_listed, json_schema_input_type=When | list[When]),
    Field(min_length=1, max_length=CONDITIONS_MAX),
]
"""One condition, or a list of which all must hold."""


def _bounds(range_: tuple[Any, Any]) -> tuple[float, float]:
    low, high = range_
    return (-inf if low is None else low), (inf if high is None else high)


def _lies_in(low: float, high: float) -> Callable[[bytes | None], bool]:
    def holds(value: bytes | None) -> bool:
        return (
            value is not None
            and _NUMBER.fullmatch(value) is not None
            and low <= float(value) < high
        )

    return holds


def _matches(pattern: re.Pattern[bytes]) -> Callable[[bytes | None], bool]:
    fullmatch = pattern.fullmatch

    def holds(value: bytes | None) -> bool:
        return value is not None and len(value) <= REGEX_MAX_BYTES and fullmatch(value) is not None

    return holds


def _from_header(name: bytes) -> Read:
    return lambda request: request.header(name)


def _from_query(name: bytes) -> Read:
    return lambda request: request.query(name)


def _from_cookie(name: bytes) -> Read:
    return lambda request: request.cookie(name)


def _path(request: Request) -> bytes:
    return request.path


def _method(request: Request) -> bytes:
    return request.method
