"""One route's `match`, compiled: does it hold, how specific is it, and in words why it does not.

Owns the meaning of each condition; `table.py` owns finding the right route quickly. Knows nothing
of other routes. Everything is compared as bytes, as they came: nothing is decoded or normalised.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from router.config.model import CertMatch, HeaderMatch, Match
from router.messages import Request

Rank = tuple[int, int, int, int, bool, int, int]
"""Sorts routes from the most to the least specific; the last item is the place in the file."""

_EXACT: Final = 0
_REGEX: Final = 1
_PARTIAL: Final = 2

_TOKEN: Final = re.compile(rb"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)
_LITERAL: Final = re.compile(rb"\^?((?:[^\\.^$*+?{}\[\]|()]|\\[^0-9A-Za-z])*)(?![*+?{])")


class Condition(StrEnum):
    """The parts of a match, in the order in which they are compared."""

    HOST = "host"
    PATH = "path"
    METHOD = "method"
    HEADER = "header"
    CERTIFICATE = "client_cert"


@dataclass(frozen=True, slots=True)
class HeaderTest:
    """A condition on one header. `exact` is its value where equality is the whole condition."""

    name: bytes
    holds: Callable[[bytes | None], bool]
    expected: str
    exact: bytes | None = None


@dataclass(frozen=True, slots=True)
class CertificateTest:
    """A condition on the client's certificate: on its subject, or on any of its other names."""

    of_names: bool
    test: HeaderTest

    def holds_for(self, request: Request) -> bool:
        return any(self.test.holds(value) for value in self._values(request))

    def found_in(self, request: Request) -> str:
        """Why it does not hold."""
        found = ", ".join(_show(value) for value in self._values(request) if value is not None)
        what = "san" if self.of_names else "subject"
        return f"client certificate's {what} is {found or 'missing'}, {self.test.expected}"

    def _values(self, request: Request) -> Iterable[bytes | None]:
        texts = request.client_names if self.of_names else (request.client_cert,)
        return [text.encode() for text in texts if text] or (None,)


@dataclass(frozen=True, slots=True)
class Conditions:
    """A compiled match.

    `host` is a suffix when it starts with `.`, `path` a prefix when it ends in `/`; otherwise they
    are exact. Empty is the suffix of every host, the prefix of every path.
    """

    host: bytes
    path: bytes
    path_regex: re.Pattern[bytes] | None
    methods: frozenset[bytes]
    headers: tuple[HeaderTest, ...]
    certificate: tuple[CertificateTest, ...] = ()

    @property
    def is_suffix(self) -> bool:
        return not self.host or self.host.startswith(b".")

    @property
    def is_prefix(self) -> bool:
        return not self.path or self.path.endswith(b"/")

    def rank(self, index: int) -> Rank:
        """How specific these are: host, then path, then method and headers, then `index`."""
        host = (_PARTIAL, -len(self.host)) if self.is_suffix else (_EXACT, 0)
        if self.path_regex is not None:
            path = (_REGEX, 0)
        else:
            path = (_PARTIAL, -len(self.path)) if self.is_prefix else (_EXACT, 0)
        tests = len(self.headers) + len(self.certificate)
        return (*host, *path, not self.methods, -tests, index)

    @property
    def is_free(self) -> bool:
        """Whether host and path are the whole match."""
        return not (self.methods or self.headers or self.certificate)

    def accepts(self, request: Request) -> bool:
        """Whether method and headers hold; host and path are the table's to look up."""
        if self.methods and request.method not in self.methods:
            return False
        for test in self.headers:
            if not test.holds(request.header(test.name)):
                return False
        return not self.certificate or all(test.holds_for(request) for test in self.certificate)

    def mismatch(self, request: Request) -> tuple[Condition, str] | None:
        """The first condition that does not hold, and in words what was found; None if all hold."""
        host, path = request.host, request.path
        if not (host.endswith(self.host) if self.is_suffix else host == self.host):
            pattern = "*" + _show(self.host) if self.is_suffix else _show(self.host)
            return Condition.HOST, f"host {_show(host) or '(none)'} is not {pattern}"
        if self.path_regex is not None:
            if not self.path_regex.fullmatch(path):
                regex = _show(self.path_regex.pattern)
                return Condition.PATH, f"path {_show(path)} does not match {regex}"
        elif self.is_prefix and not path.startswith(self.path):
            return Condition.PATH, f"path {_show(path)} is not below {_show(self.path)}"
        elif not self.is_prefix and path != self.path:
            return Condition.PATH, f"path {_show(path)} is not {_show(self.path)}"
        if self.methods and request.method not in self.methods:
            methods = " or ".join(sorted(map(_show, self.methods)))
            return Condition.METHOD, f"method {_show(request.method)} is not {methods}"
        for test in self.headers:
            value = request.header(test.name)
            if not test.holds(value):
                found = "is missing" if value is None else f"is '{_show(value)}'"
                return Condition.HEADER, f"header {_show(test.name)} {found}, {test.expected}"
        for one in self.certificate:
            if not one.holds_for(request):
                return Condition.CERTIFICATE, one.found_in(request)
        return None


def compile_match(match: Match) -> Conditions:
    """Compile `match`."""
    return Conditions(
        host=(match.host or "").removeprefix("*").encode(),
        path=(match.path or "").encode(),
        path_regex=None if match.path_regex is None else re.compile(match.path_regex.encode()),
        methods=frozenset(method.encode() for method in match.methods or ()),
        headers=tuple(_header_test(*item) for item in (match.headers or {}).items()),
        certificate=_certificate_tests(match.client_cert),
    )


def literal_prefix(regex: bytes) -> bytes:
    """Bytes that every full match of `regex` starts with: as many as can be told cheaply.

    Reads up to the first special character; a top-level `|` means that nothing is common.
    """
    if b"(?#" in regex:
        return b""  # a comment may hold unbalanced parentheses
    depth = 0
    for token in _TOKEN.findall(regex):
        depth += (token == b"(") - (token == b")")
        if token == b"|" and depth == 0:
            return b""
    literal = _LITERAL.match(regex)
    return re.sub(rb"\\(.)", rb"\1", literal[1], flags=re.DOTALL) if literal else b""


def _certificate_tests(match: CertMatch | None) -> tuple[CertificateTest, ...]:
    if match is None:
        return ()
    parts = ((False, "subject", match.subject), (True, "san", match.san))
    return tuple(
        CertificateTest(of_names, _header_test(name, wanted))
        for of_names, name, wanted in parts
        if wanted is not None
    )


def _header_test(name: str, match: HeaderMatch) -> HeaderTest:
    key = name.encode()
    if match.exact is not None:
        exact = match.exact.encode()
        return HeaderTest(key, lambda value: value == exact, f"expected {match.exact!r}", exact)
    if match.prefix is not None:
        prefix = match.prefix.encode()
        return HeaderTest(
            key,
            lambda value: value is not None and value.startswith(prefix),
            f"expected one that starts with {match.prefix!r}",
        )
    if match.regex is not None:
        fullmatch = re.compile(match.regex.encode()).fullmatch
        return HeaderTest(
            key,
            lambda value: value is not None and fullmatch(value) is not None,
            f"expected a full match of {match.regex!r}",
        )
    is_present = match.present is not False
    return HeaderTest(
        key,
        lambda value: (value is not None) is is_present,
        "expected any value" if is_present else "expected none",
    )


def _show(value: bytes) -> str:
    """Text for people: what is not printable ASCII is escaped, what is long is cut."""
    text = value.decode("ascii", "backslashreplace")
    text = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    return text if len(text) <= 80 else text[:77] + "..."
