from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from router.policies.conditions import When
from router.policies.segments import (
    CELLS_MAX,
    Feature,
    Features,
    cells_of,
    compile_features,
    compile_segments,
    name_segments,
    shadowed,
)
from tests.policies.requests import Head

_features: TypeAdapter[dict[str, Feature]] = TypeAdapter(Features)

_conditions = st.builds(
    lambda name, test: When.model_validate({"header": name} | test),
    st.sampled_from("ab"),
    st.one_of(
        st.builds(lambda v: {"exact": v}, st.sampled_from("123")),
        st.builds(lambda v: {"in": v}, st.lists(st.sampled_from("123"), min_size=1, max_size=3)),
        st.builds(lambda v: {"prefix": v}, st.sampled_from(["1", "12"])),
        st.builds(lambda v: {"present": v}, st.booleans()),
        st.builds(lambda low: {"range": [low, low + 2]}, st.integers(0, 3)),
    ),
)
_rules = st.lists(st.lists(_conditions, min_size=1, max_size=2).map(tuple), max_size=6)
_heads = st.builds(
    lambda fields: Head({name.encode(): value.encode() for name, value in fields.items()}),
    st.dictionaries(st.sampled_from("ab"), st.sampled_from(["", "1", "12", "2", "3", "x"])),
)


def rule(**condition: Any) -> tuple[When, ...]:
    return (When.model_validate(condition),)


@given(_rules, _heads)
def test_a_request_is_in_the_first_segment_whose_conditions_all_hold(
    rules: list[tuple[When, ...]], head: Head
) -> None:
    """However they were compiled: look-ups of several rules, or one by one."""
    cells = name_segments([None] * len(rules))
    first = next(
        (c for c, one in zip(cells, rules, strict=True)
         if all(w.test()(w.reader()(head)) for w in one)),
        "",
    )  # fmt: skip

    assert compile_segments(list(zip(cells, rules, strict=True)))(head) == first


@given(_rules, _heads)
def test_no_request_is_in_a_segment_that_is_said_to_get_none(
    rules: list[tuple[When, ...]], head: Head
) -> None:
    cells = name_segments([None] * len(rules))
    unreached = {cells[place] for place, _ in shadowed(rules)}

    assert compile_segments(list(zip(cells, rules, strict=True)))(head) not in unreached


def test_rules_in_a_row_on_one_header_read_it_once() -> None:
    rules = [(str(i), rule(header="a", **{"in": [f"{i}", f"x{i}"]})) for i in range(50)]

    class Counting(Head):
        asked = 0

        def header(self, name: bytes) -> bytes | None:
            self.asked += 1
            return super().header(name)

    head = Counting({b"a": b"x49"})
    assert compile_segments(rules)(head) == "49"
    assert head.asked == 1


def test_a_segment_without_a_name_is_called_after_its_place() -> None:
    assert name_segments(["anz", None]) == ("anz", "segment-2")
    with pytest.raises(ValueError, match="the segment name 'anz' is taken by segment 1"):
        name_segments(["anz", "anz"])


def test_what_an_earlier_rule_takes_whole_is_found() -> None:
    rules = [
        rule(header="a", exact="1"),
        rule(header="a", **{"in": ["1", "2"]}),
        (*rule(header="a", exact="2"), *rule(header="b", present=True)),
        rule(path=True, prefix="/"),
        rule(header="c", present=True),
    ]

    assert list(shadowed(rules)) == [(2, 1), (4, 3)]


def test_every_combination_of_features_is_a_cell() -> None:
    features = _features.validate_python(
        {"country": {"header": "x-country", "in": ["AU", "NZ"]},
         "plan": {"cookie": "plan", "in": ["pro"]}}
    )  # fmt: skip
    cell_of = compile_features(features)
    head = Head({b"x-country": b"AU"}, {b"plan": b"free"})

    assert cell_of(head) == "country=AU,plan=other"
    assert cell_of(Head({}, {b"plan": b"pro"})) == "country=other,plan=pro"
    assert len(cells_of(features)) == 6
    assert cells_of(features)["country=NZ,plan=pro"] == {"country": "NZ", "plan": "pro"}
    assert cells_of({}) == {}


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"a": {"header": "a", "in": [f"v{i}" for i in range(CELLS_MAX)]}}, "at most 63 items"),
        (
            {name: {"header": name, "in": ["1", "2", "3"]} for name in "abcd"},
            "256 combinations of values, expected no more than 64",
        ),
        ({"a": {"header": "a", "in": ["x", "x"]}}, "a value is listed twice"),
        ({"a": {"header": "a", "in": ["other"]}}, "'other' stands for every value"),
        ({"a": {"header": "a", "in": ["x,y"]}}, "should match pattern"),
        ({"a": {"header": "a", "in": ["x=y"]}}, "should match pattern"),
        ({"a b": {"header": "a", "in": ["x"]}}, "should match pattern"),
        ({"a": {"in": ["x"]}}, "exactly one of header, query"),
        (
            {name * 63: {"header": name, "in": ["x" * 64]} for name in "abc"},
            "characters, expected at most 200",
        ),
    ],
)
def test_features_that_cannot_be_are_refused(features: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        _features.validate_python(features)
