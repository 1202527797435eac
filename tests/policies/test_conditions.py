from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from router.policies.conditions import REGEX_MAX_BYTES, Conditions, Subject, When
from tests.policies.requests import Head


def when(**condition: Any) -> When:
    return When.model_validate(condition)


def holds(condition: When, request: Head) -> bool:
    return condition.test()(condition.reader()(request))


def country(value: str | None) -> Head:
    return Head({} if value is None else {b"x-country": value.encode()})


@pytest.mark.parametrize(
    ("test", "fits", "others"),
    [
        ({"exact": "AU"}, ["AU"], ["au", "AUS", "", None]),
        ({"in": ["AU", "NZ"]}, ["AU", "NZ"], ["AT", "", None]),
        ({"prefix": "A"}, ["AU", "A"], ["NZ", "", None]),
        ({"regex": "A[UT]"}, ["AU", "AT"], ["AUS", "xAU", "", None]),
        ({"present": True}, ["AU", ""], [None]),
        ({"present": False}, [None], ["AU", ""]),
        ({"range": [18, 65]}, ["18", "64.9", "+20"], ["17.9", "65", "1e1", "x", "", None]),
        ({"range": [None, 0]}, ["-1", "-0.5"], ["0", "nan", "-inf", None]),
        ({"range": [0.5, None]}, ["0.5", "999999"], ["0.4", "inf", "9" * 19, None]),
    ],
)
def test_a_test_holds_for_what_it_says(
    test: dict[str, Any], fits: list[str], others: list[str | None]
) -> None:
    condition = when(header="X-Country", **test)

    assert [value for value in fits if not holds(condition, country(value))] == []
    assert [value for value in others if holds(condition, country(value))] == []


def test_every_part_of_a_request_can_be_looked_at() -> None:
    request = Head(
        {b"x-a": b"header"},
        {b"b": b"cookie"},
        method=b"POST",
        path=b"/v2/models",
        parameters={b"c": b"query"},
    )

    assert holds(when(header="x-a", exact="header"), request)
    assert holds(when(cookie="b", exact="cookie"), request)
    assert holds(when(query="c", exact="query"), request)
    assert holds(when(method=True, exact="POST"), request)
    assert holds(when(path=True, prefix="/v2/"), request)
    assert not holds(when(cookie="x-a", present=True), request)


def test_a_long_value_is_shown_to_no_regular_expression() -> None:
    condition = when(header="x-country", regex=".*")

    assert holds(condition, country("a" * REGEX_MAX_BYTES))
    assert not holds(condition, country("a" * (REGEX_MAX_BYTES + 1)))


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({}, "a condition is on exactly one of header, query, cookie, path, method"),
        ({"header": "a", "query": "b", "exact": "c"}, "a condition is on exactly one of"),
        ({"header": "a b", "exact": "c"}, "'a b' is not a header name"),
        ({"path": False, "exact": "c"}, "Input should be True"),
        ({"header": "a"}, "one of exact, in, range, prefix, regex, present"),
        ({"header": "a", "exact": "b", "prefix": "c"}, "one of exact, in, range"),
        ({"header": "a", "in": []}, "at least 1 item"),
        ({"header": "a", "in": [1]}, "valid string"),
        ({"header": "a", "exact": True}, "valid string"),
        ({"header": "a", "range": [2, 1]}, r"range \[2, 1\] is empty, the first must be less"),
        ({"header": "a", "range": [1, 1]}, r"range \[1, 1\] is empty"),
        ({"header": "a", "range": ["1", 2]}, "valid number"),
        ({"header": "a", "range": [float("nan"), 2]}, "finite number"),
        ({"header": "a", "range": [1]}, "Field required"),
        ({"header": "a", "regex": "("}, r"'\(' is not a regular expression"),
        ({"header": "a", "regex": "x" * 2000}, "at most 1024 characters"),
        ({"header": "a", "like": "x"}, "Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_is_refused(condition: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        when(**condition)


def test_one_condition_may_stand_without_a_list() -> None:
    conditions: TypeAdapter[tuple[When, ...]] = TypeAdapter(Conditions)
    one = {"header": "a", "exact": "b"}

    assert conditions.validate_python(one) == conditions.validate_python([one])
    with pytest.raises(ValidationError, match="at most 8 items"):
        conditions.validate_python([one] * 9)
    with pytest.raises(ValidationError, match="at least 1 item"):
        conditions.validate_python([])


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ({"path": True, "prefix": "/"}, {"header": "a", "exact": "b"}),
        ({"method": True, "present": True}, {"header": "a", "exact": "b"}),
        ({"path": True, "regex": ".*"}, {"cookie": "a", "present": False}),
        ({"header": "A", "present": True}, {"header": "a", "range": [1, 2]}),
        ({"header": "a", "in": ["b", "c"]}, {"header": "a", "exact": "c"}),
        ({"header": "a", "prefix": "b"}, {"header": "a", "prefix": "bc"}),
        ({"header": "a", "prefix": "b"}, {"header": "a", "in": ["b1", "b2"]}),
        ({"header": "a", "regex": "[bc]"}, {"header": "a", "in": ["b", "c"]}),
        ({"header": "a", "range": [None, 5]}, {"header": "a", "range": [1, 5]}),
        ({"header": "a", "regex": "b+"}, {"header": "a", "regex": "b+"}),
    ],
)
def test_a_condition_covers_one_that_holds_for_no_more(
    wide: dict[str, Any], narrow: dict[str, Any]
) -> None:
    assert when(**wide).covers(when(**narrow))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"header": "a", "present": True}, {"header": "b", "exact": "c"}),
        ({"header": "a", "present": True}, {"header": "a", "present": False}),
        ({"header": "a", "in": ["b"]}, {"header": "a", "in": ["b", "c"]}),
        ({"header": "a", "exact": "c"}, {"cookie": "a", "exact": "c"}),
        ({"header": "a", "range": [1, 2]}, {"header": "a", "range": [1, 3]}),
        ({"header": "a", "prefix": "b"}, {"header": "a", "regex": "b"}),
    ],
)
def test_a_condition_covers_nothing_else(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert not when(**one).covers(when(**other))


def test_a_subject_is_one_thing() -> None:
    assert Subject(header="a").subject == Subject(header="A").subject
    assert Subject(header="a").subject != Subject(cookie="a").subject
