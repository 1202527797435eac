"""YAML text to plain data: what is allowed, and what is told of the rest."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.config.document import BROKEN, DEPTH_MAX, NODES_MAX, Document, Mark, read


def data(text: str, **env: str) -> Any:
    document = read(text, env)
    assert document.root is not None
    assert document.mistakes == ()
    return document.root.data


def told(document: Document) -> list[tuple[int, int, str]]:
    return [(one.mark.line, one.mark.column, one.message) for one in document.mistakes]


def test_a_document_is_plain_data() -> None:
    text = "a: [1, 0.5, true, null, off, 'on', \"\\u00e9\"]\nb: {c: x y, d: }\ne: >-\n  f\n  g\n"
    assert data(text) == {
        "a": [1, 0.5, True, None, "off", "on", "é"],
        "b": {"c": "x y", "d": None},
        "e": "f g",
    }


def test_words_of_yaml_1_1_are_keys_like_any_other() -> None:
    assert data("on: 1\noff: 2\nyes: 3\n2024-01-01: 4\n") == {
        "on": 1,
        "off": 2,
        "yes": 3,
        "2024-01-01": 4,
    }


def test_values_and_keys_know_their_place() -> None:
    root = read("a:\n  - x\n  - {é: y, b: z}\n", {}).root
    assert root is not None
    entry = root.children["a"].children[1]
    assert entry.mark == Mark(3, 5)
    assert entry.key_marks["b"] == Mark(3, 12)
    assert entry.children["b"].mark == Mark(3, 15)


def test_a_plain_variable_is_read_again_and_a_quoted_one_is_text() -> None:
    assert data('a: ${N}\nb: "${N}"\nc: ${B}\nd: ${E:-}\n', N="4", B="true") == {
        "a": 4,
        "b": "4",
        "c": True,
        "d": None,
    }


def test_a_variable_cannot_add_structure() -> None:
    assert data("a: ${X}\n", X="{b: [c, &d e]}") == {"a": "{b: [c, &d e]}"}


def test_an_alias_is_its_value() -> None:
    root = read("a: &x {b: [1]}\nc: *x\nd: *x\n", {}).root
    assert root is not None
    assert root.data == {"a": {"b": [1]}, "c": {"b": [1]}, "d": {"b": [1]}}
    assert root.children["d"].children["b"].mark == Mark(1, 11)


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, 1, "the key 'a' is given twice, first in line 1"),
        ("a: {b: 1, 'b': 2}", 1, 11, "the key 'b' is given twice, first in line 1"),
        ("1: a", 1, 1, "the key 1 is not text"),
        ("true: a", 1, 1, "the key true is not text"),
        ("? [a]\n: b", 1, 3, "a key must be text"),
        ("a: {<<: {b: 1}}", 1, 5, "merge keys (<<) are not part of YAML 1.2"),
        ("a: !!str 1", 1, 4, "the tag tag:yaml.org,2002:str is not allowed"),
        (
            "a: !!python/name:os.system x",
            1,
            4,
            "the tag tag:yaml.org,2002:python/name:os.system is not allowed",
        ),
        ("a: &x [*x]", 1, 8, "the alias *x contains itself"),
        ("a: *x", 1, 4, "the alias *x has no anchor before it"),
        ("a: ${NONE}", 1, 4, "environment variable NONE is not set"),
        ('a: "x\\0"', 1, 4, "contains the control character U+0000"),
        ("a: |\n  x\n", 1, 4, "contains the control character U+000A"),
        ("a: 1\n---\nb: 2", 2, 1, "a second document begins here"),
    ],
)
def test_one_mistake_does_not_end_reading(text: str, line: int, column: int, message: str) -> None:
    document = read(text, {})
    assert document.root is not None
    assert told(document) == [(line, column, message)]


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("", 1, 1, "the file is empty"),
        ("# nothing\n", 1, 1, "the file is empty"),
        (
            "a: [1\n",
            2,
            1,
            "not YAML: did not find expected ',' or ']', while parsing a flow sequence",
        ),
        ("a: b: c", 1, 5, "not YAML: mapping values are not allowed in this context"),
        ("a: é\x07", 1, 5, "U+0007 is a character that YAML does not allow"),
        ("a: 1\nb: \x00", 2, 4, "U+0000 is a character that YAML does not allow"),
    ],
)
def test_what_is_not_yaml_ends_reading_with_its_place(
    text: str, line: int, column: int, message: str
) -> None:
    document = read(text, {})
    assert document.root is None
    assert told(document) == [(line, column, message)]


def test_a_variable_with_a_control_character_is_refused() -> None:
    document = read("a: ${X}", {"X": "token\n"})
    assert told(document) == [(1, 4, "contains the control character U+000A")]
    assert document.root is not None
    assert document.root.data == {"a": BROKEN}


def test_a_value_that_an_undecodable_variable_became_is_refused() -> None:
    assert told(read("a: ${X}", {"X": "\udcff"})) == [
        (1, 4, "contains the control character U+DCFF")
    ]


def test_an_unquoted_variable_in_braces_is_explained() -> None:
    (mistake,) = read("a: {b: ${X}}", {"X": "1"}).mistakes
    assert mistake.hint == "put values with ${...} inside { } or [ ] in quotes"


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_nesting_is_bounded_before_it_costs_anything(opening: str) -> None:
    document = read(opening * 200_000, {})
    assert document.root is None
    assert [message for _, _, message in told(document)] == [
        f"nested deeper than {DEPTH_MAX} levels"
    ]


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    document = read("\n".join(lines), {})
    assert document.root is None
    assert [message for _, _, message in told(document)] == [
        f"more than {NODES_MAX} values, counting those of aliases"
    ]


@given(st.text(alphabet="ab01:-[]{},&*!|>'\"#%@`? \n\t$~.\\é\x85\u2028\ufeff", max_size=60))
def test_any_text_is_data_or_mistakes(text: str) -> None:
    document = read(text, {"a": "b"})
    assert (document.root is not None) or document.mistakes
