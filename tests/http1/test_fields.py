import pytest

from router.errors import MALFORMED, HeadError
from router.http1 import fields
from router.http1.fields import FieldLines, index, list_items, value_of, values_of


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        pytest.param(b"Accept: text/html", b"accept", b"text/html", id="usual"),
        pytest.param(b"accept:text/html", b"accept", b"text/html", id="no-space"),
        pytest.param(b"X: \t padded \t ", b"x", b"padded", id="padding-stripped"),
        pytest.param(b"x-empty:", b"x-empty", b"", id="empty-value"),
        pytest.param(b"a: b:c", b"a", b"b:c", id="colon-in-value"),
        pytest.param(b"a: b\tc", b"a", b"b\tc", id="tab-inside"),
        pytest.param(b"a: caf\xc3\xa9 \xff", b"a", b"caf\xc3\xa9 \xff", id="bytes-above-127"),
        pytest.param(b"a: \x85\xa0", b"a", b"\x85\xa0", id="latin-1-spaces-are-not-spaces"),
        pytest.param(b"!#$%&'*+-.^_`|~09aZ: v", b"!#$%&'*+-.^_`|~09az", b"v", id="every-tchar"),
    ],
)
def test_a_line_of_the_grammar_gives_its_name_and_value_and_keeps_its_bytes(
    line: bytes, name: bytes, value: bytes
) -> None:
    assert FieldLines()[line] == (name, line)
    assert value_of(name, line) == value


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"novalue", id="no-colon"),
        pytest.param(b": v", id="no-name"),
        pytest.param(b"name : v", id="space-before-colon"),
        pytest.param(b"name\t: v", id="tab-before-colon"),
        pytest.param(b" folded: v", id="fold-with-space"),
        pytest.param(b"\tfolded: v", id="fold-with-tab"),
        pytest.param(b"\x0bname: v", id="vertical-tab-before-name"),
        pytest.param(b"na me: v", id="space-in-name"),
        pytest.param(b"na(me: v", id="delimiter-in-name"),
        pytest.param(b'na"me: v', id="quote-in-name"),
        pytest.param(b"na\xc3\xa9: v", id="byte-above-127-in-name"),
        pytest.param(b"na\xe2\x84\xaa: v", id="kelvin-sign-in-name"),
        pytest.param(b"na\x00me: v", id="nul-in-name"),
        pytest.param(b"name: v\x00", id="nul-in-value"),
        pytest.param(b"name: a\rb", id="bare-cr"),
        pytest.param(b"name: a\r", id="trailing-cr"),
        pytest.param(b"name: a\nb: c", id="bare-lf"),
        pytest.param(b"name: \x0b", id="vertical-tab-in-value"),
        pytest.param(b"name: \x1f", id="unit-separator-in-value"),
        pytest.param(b"name: \x7f", id="del-in-value"),
    ],
)
def test_a_line_outside_the_grammar_is_refused_each_time_it_comes(line: bytes) -> None:
    known = FieldLines()
    for _ in range(2):
        with pytest.raises(HeadError) as caught:
            known[line]
        assert caught.value.refusal is MALFORMED
    assert not known


@pytest.mark.parametrize(
    "name", [b"content_length", b"Content_Length", b"x_router_shadow", b"x-router_shadow"]
)
def test_a_name_that_passes_for_a_hyphenated_one_is_refused(name: bytes) -> None:
    known = FieldLines(frozenset((b"content-length", b"x-router-shadow")))
    with pytest.raises(HeadError, match="passes for one with hyphens"):
        known[name + b": 1"]


def test_other_names_with_underscores_are_relayed() -> None:
    known = FieldLines(frozenset((b"content-length",)))
    assert known[b"x_user_id: 1"] == (b"x_user_id", b"x_user_id: 1")


def test_a_remembered_line_is_the_same_object_as_the_validated_one() -> None:
    known = FieldLines()
    assert known[b"a: b"] is known[b"a: b"]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"Authorization: Bearer x", id="authorization"),
        pytest.param(b"Cookie: a=b", id="cookie"),
        pytest.param(b"X-Api-Key: k", id="x-api-key"),
        pytest.param(b"a: " + b"v" * 158, id="too-long"),
    ],
)
def test_secrets_and_long_lines_are_not_remembered(line: bytes) -> None:
    known = FieldLines()
    assert known[line] == (line.partition(b":")[0].lower(), line)
    assert not known


def test_the_longest_line_that_is_remembered_has_the_bound_as_its_length() -> None:
    known = FieldLines()
    line = b"a: " + b"v" * 157
    assert known[line] == (b"a", line)
    assert list(known) == [line]


def test_memory_is_emptied_when_full_and_what_is_read_does_not_change() -> None:
    known = FieldLines()
    lines = [b"x-n: %d" % n for n in range(fields._REMEMBERED_MAX_LINES + 10)]
    for line in lines:
        assert known[line] == (b"x-n", line)
    assert len(known) == 10
    for line in lines[:20]:
        assert known[line] == (b"x-n", line)


def test_repeated_fields_are_kept_apart_and_in_order() -> None:
    lines = [b"Set-Cookie: a=1, b", b"x: 1", b"set-cookie: c=2", b"X: 2"]
    found = index(lines, FieldLines(), frozenset())
    assert found == {b"set-cookie": b"Set-Cookie: a=1, b\r\nset-cookie: c=2", b"x": b"x: 1\r\nX: 2"}
    assert values_of(b"set-cookie", found[b"set-cookie"]) == [b"a=1, b", b"c=2"]
    assert value_of(b"x", found[b"x"]) == b"1, 2"


def test_a_field_that_may_come_once_is_refused_when_repeated_in_another_case() -> None:
    with pytest.raises(HeadError, match="header host appears more than once"):
        index([b"Host: a", b"x: 1", b"HOST: a"], FieldLines(), frozenset((b"host",)))


def test_list_members_are_lower_case_and_never_empty() -> None:
    line = b"Connection: ,Close,, \tX-A ,\r\nconnection: x-b"
    assert list_items(b"connection", line) == [b"close", b"x-a", b"x-b"]
