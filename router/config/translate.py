"""Pydantic's errors in the words of the YAML: where it is, what was found, what would be right.

Pydantic's `loc` is not a path in the document: it also holds policy types, names of alternatives
and `[key]`. `_locate` walks the document along it and leaves those out. Several errors about one
value (alternatives that all failed) become one finding.

Values that may be secret are never shown: a wrong type is told by the kind of what was found, a
wrong length by the length that is right.
"""

import contextlib
import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from router.config.model import Config
from router.config.problems import Finding, Path
from router.config.schema import Schema, known_keys
from router.policies import POLICIES
from router.units import (
    format_duration,
    format_share,
    format_size,
    parse_duration,
    parse_share,
    parse_size,
)

_KNOWN_KEYS_SHOWN_MAX: Final = 12
_VALUE_MAX_CHARS: Final = 60

_EXPECTED: Final = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
    "set_type": "a list",
}
"""Pydantic's error types -> what stands in the YAML instead."""

_MAY_HIDE: Final = ("text", "a mapping", "a list")
"""Where these are expected what was found may be secret, or long: only its kind is told."""

_BOUNDS: Final = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def translate(error: ValidationError, document: Any) -> list[Finding]:
    """The findings in `error`, which validating `document` raised."""
    schema = Config.model_json_schema()
    found: dict[Path, list[Finding]] = {}
    for details in error.errors(include_url=False):
        if (finding := _finding(details, document, schema)) is not None:
            found.setdefault(finding.path, []).append(finding)
    return [one for alternatives in found.values() for one in _merged(alternatives)]


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, the known words when they are few, or nothing."""
    words = list(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    if 0 < len(words) <= _KNOWN_KEYS_SHOWN_MAX:
        return f"known: {', '.join(sorted(words))}"
    return ""


def _finding(details: ErrorDetails, document: Any, schema: Schema) -> Finding | None:
    kind, context = details["type"], details.get("ctx", {})
    path, rest = _locate(details["loc"], document)
    value = _at(document, path)
    if kind == "missing":
        return Finding(path, f"the key {rest[-1]!r} is missing")
    if kind == "extra_forbidden":
        known = known_keys(schema, path[:-1], document)
        hint = nearest(str(path[-1]), (key for key in known if key not in _at(document, path[:-1])))
        return Finding(path, f"unknown key {path[-1]!r}", hint, at_key=True)
    if kind == "union_tag_not_found":
        return Finding(path, "the key 'type' is missing", f"one of {', '.join(sorted(POLICIES))}")
    if kind == "union_tag_invalid":
        tag = str(context["tag"])
        kinds = context["expected_tags"].replace("'", "").split(", ")
        return Finding((*path, "type"), f"unknown type {tag!r}", nearest(tag, kinds))
    if kind == "too_short" and len(value) >= context["min_length"]:
        return None  # pydantic counts what is left without bad entries; those are told
    at_key = "[key]" in details["loc"]
    if kind in ("value_error", "assertion_error"):
        return Finding(path, str(context["error"]), at_key=at_key)
    return Finding(path, *_words(kind, context, value), at_key=at_key)


def _words(kind: str, context: dict[str, Any], value: Any) -> tuple[str, str]:
    """Message and hint for an error about `value` itself."""
    if kind in _EXPECTED:
        found = _kind_of(value) if _EXPECTED[kind] in _MAY_HIDE else _show(value)
        return f"expected {_EXPECTED[kind]}, found {found}", _type_hint(kind, value)
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return f"expected {words} {_in_unit_of(value, context[key])}, found {_show(value)}", ""
    if kind in ("literal_error", "enum"):
        expected = re.sub(r"\b(True|False)\b", lambda word: word[0].lower(), context["expected"])
        known = re.findall(r"'([^']*)'", expected)
        hint = nearest(value, known) if isinstance(value, str) else ""
        return f"expected {expected}, found {_show(value)}", hint if "mean" in hint else ""
    if kind in ("too_short", "too_long"):
        words, key = (
            ("at least", "min_length") if kind == "too_short" else ("at most", "max_length")
        )
        entries = "entry" if context[key] == 1 else "entries"
        return f"expected {words} {context[key]} {entries}, found {len(value)}", ""
    if kind == "string_too_short":
        return f"expected at least {context['min_length']} characters, found {len(value)}", ""
    if kind == "string_too_long":
        return f"expected at most {context['max_length']} characters, found {len(value)}", ""
    if kind == "string_pattern_mismatch":
        return f"expected text that matches {context['pattern']}, found {_show(value)}", ""
    return f"{kind.replace('_', ' ')}, found {_show(value)}", ""


def _type_hint(kind: str, value: Any) -> str:
    if value is None:
        return "give it a value, or remove the key"
    is_scalar = not isinstance(value, dict | list)
    return "put it in quotes" if kind == "string_type" and is_scalar else ""


def _merged(findings: list[Finding]) -> list[Finding]:
    """Of alternatives that all failed, `expected A, found X` and `expected B, found X`: one."""
    options = [one.message.partition(", found ") for one in findings]
    if len(findings) == 1 or not all(head.startswith("expected ") for head, _, _ in options):
        return findings
    expected = dict.fromkeys(head.removeprefix("expected ") for head, _, _ in options)
    found = min((tail for _, _, tail in options), key=lambda tail: tail in _KINDS)
    hint = next((one.hint for one in findings if one.hint), "")
    first = findings[0]
    message = f"expected {' or '.join(expected)}, found {found}"
    return [Finding(first.path, message, hint, first.at_key)]


def _locate(loc: tuple[int | str, ...], document: Any) -> tuple[Path, tuple[int | str, ...]]:
    """The part of `loc` that is a path in `document`, and what is left where that ends."""
    path: list[int | str] = []
    data, has_passed_tag = document, False
    for i, step in enumerate(loc):
        if isinstance(data, dict) and step == data.get("type") and not has_passed_tag:
            has_passed_tag = True  # the policy's type chose the model
            continue
        is_below = (
            step in data
            if isinstance(data, dict)
            else (isinstance(data, list) and isinstance(step, int) and step < len(data))
        )
        if not is_below:
            return tuple(path), loc[i:]
        path.append(step)
        data, has_passed_tag = data[step], False
    return tuple(path), ()


def _at(document: Any, path: Path) -> Any:
    for step in path:
        document = document[step]
    return document


_KINDS: Final = ("a list", "a mapping", "nothing", "text", "a number", "true", "false")


def _kind_of(value: Any) -> str:
    """What `value` is, without showing it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    for kind, name in (
        (dict, "a mapping"),
        (list, "a list"),
        (str, "text"),
        (int | float, "a number"),
    ):
        if isinstance(value, kind):
            return name
    return "something else"


def _show(value: Any) -> str:
    if isinstance(value, dict | list | bool) or value is None:
        return _kind_of(value)
    text = repr(value)
    return text if len(text) <= _VALUE_MAX_CHARS else text[: _VALUE_MAX_CHARS - 3] + "..."


def _in_unit_of(value: Any, bound: float) -> str:
    """`bound` in the unit that `value`, text of the YAML, is written in."""
    pairs: tuple[tuple[Callable[[object], float], Callable[[Any], str]], ...] = (
        (parse_duration, format_duration),
        (parse_size, format_size),
        (parse_share, format_share),
    )
    for parse, show in pairs if isinstance(value, str) else ():
        with contextlib.suppress(ValueError):
            parse(value)
            return show(bound)
    return f"{bound:g}"
