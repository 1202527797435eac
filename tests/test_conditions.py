"""What each condition of a match means, and what is known of a regex before it is tried."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.conditions import literal_prefix
from tests.heads import Head, found, table_of


@pytest.mark.parametrize(
    ("match", "path", "is_taken"),
    [
        ({}, b"/", True),
        ({}, b"*", True),
        ({"path": "/"}, b"*", False),
        ({"path": "/v2/m"}, b"/v2/m", True),
        ({"path": "/v2/m"}, b"/v2/m/", False),
        ({"path": "/v2/m"}, b"/v2/m/infer", False),
        ({"path": "/v2/m/"}, b"/v2/m/infer", True),
        ({"path": "/v2/m/"}, b"/v2/m/", True),
        ({"path": "/v2/m/"}, b"/v2/m", False),
        ({"path": "/v2/m/"}, b"/v2/models", False),
        ({"path": "/v2/m/"}, b"/V2/m/infer", False),
        ({"path": "/v2/m/"}, b"/v2/%6d/infer", False),
        ({"path_regex": "/v[0-9]+/m"}, b"/v22/m", True),
        ({"path_regex": "/v[0-9]+/m"}, b"/v22/m/infer", False),
        ({"path_regex": "/a|/bc"}, b"/bc", True),
        ({"path_regex": "/ab?c"}, b"/ac", True),
        ({"path_regex": "^/a$"}, b"/a", True),
        ({"path_regex": "(?i)/models/.*"}, b"/MODELS/x", True),
        ({"path_regex": "[/]a"}, b"/a", True),
    ],
)
def test_a_path_condition_takes_what_it_says(
    match: dict[str, Any], path: bytes, is_taken: bool
) -> None:
    assert (found(table_of(match), Head(path)) == 0) is is_taken


@pytest.mark.parametrize(
    ("pattern", "host", "is_taken"),
    [
        ("api.example.org", b"api.example.org", True),
        ("API.Example.org", b"api.example.org", True),
        ("api.example.org", b"x.api.example.org", False),
        ("*.example.org", b"api.example.org", True),
        ("*.example.org", b"a.b.example.org", True),
        ("*.example.org", b"example.org", False),
        ("*.example.org", b"badexample.org", False),
        ("*.example.org", b"api.example.org.evil.net", False),
        ("*.example.org", b"", False),
        ("[::1]", b"[::1]", True),
    ],
)
def test_a_host_condition_takes_what_it_says(pattern: str, host: bytes, is_taken: bool) -> None:
    assert (found(table_of({"host": pattern}), Head(host=host)) == 0) is is_taken


@pytest.mark.parametrize(
    ("condition", "value", "is_taken"),
    [
        ("blue", b"blue", True),
        ("blue", b"Blue", False),
        ("blue", None, False),
        ({"exact": ""}, b"", True),
        ({"exact": ""}, None, False),
        ({"exact": "gr\u00fcn"}, "gr\u00fcn".encode(), True),
        ({"prefix": "bl"}, b"blue", True),
        ({"prefix": "bl"}, b"xbl", False),
        ({"prefix": "bl"}, None, False),
        ({"regex": "[a-z]+"}, b"blue", True),
        ({"regex": "[a-z]+"}, b"blue7", False),
        ({"regex": "[a-z]*"}, None, False),
        ({"regex": "a|ab"}, b"ab", True),
        ({"present": True}, b"", True),
        ({"present": True}, None, False),
        ({"present": False}, None, True),
        ({"present": False}, b"", False),
    ],
)
def test_a_header_condition_takes_what_it_says(
    condition: object, value: bytes | None, is_taken: bool
) -> None:
    head = Head(fields={} if value is None else {b"x-colour": value})
    table = table_of({"headers": {"X-Colour": condition}})
    assert (found(table, head) == 0) is is_taken


def test_methods_and_headers_must_hold_together() -> None:
    table = table_of({"methods": ["PUT", "POST"], "headers": {"a": "1", "b": {"prefix": "2"}}})
    fields = {b"a": b"1", b"b": b"23"}
    assert found(table, Head(fields=fields)) == 0
    assert found(table, Head(fields=fields, method=b"GET")) is None
    assert found(table, Head(fields={b"a": b"1"})) is None
    assert found(table, Head(fields={**fields, b"a": b"2"})) is None


# --- literal starts of regexes -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("regex", "literal"),
    [
        (rb"/v2/models/m/infer", b"/v2/models/m/infer"),
        (rb"^/v2/m$", b"/v2/m"),
        (rb"/v2\.0/m\-1/.*", b"/v2.0/m-1/"),
        (rb"/v2/(a|b)/c", b"/v2/"),
        (rb"/v2/[a|b]", b"/v2/"),
        (rb"/v\d+", b"/v"),
        (rb"/a|/b", b""),
        (rb"/a[)]|/b", b""),
        (rb"/a\(|/b", b""),
        (rb"/a(?#()|/b", b""),
        (rb"/ab?", b"/a"),
        (rb"/ab*", b"/a"),
        (rb"/ab{0,1}", b"/a"),
        (rb"/a\.?b", b"/a"),
        (rb"(?i)/a", b""),
        (rb"(?x) / a", b""),
        (rb"", b""),
    ],
)
def test_the_literal_start_ends_where_choice_begins(regex: bytes, literal: bytes) -> None:
    assert literal_prefix(regex) == literal


_regexes = st.recursive(
    st.sampled_from(["a", "b", "/", r"\.", "[ab]", "[^a]", ".", r"\w"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["?", "*", "+", "{2}", "{0,1}", "*?"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}" if len(pair[0]) > 2 else "".join(pair)
        ),
        st.lists(inner, min_size=2, max_size=4).map("".join),
        st.lists(inner, min_size=2, max_size=3).map("|".join),
        inner.map(lambda regex: f"({regex})"),
    ),
    max_leaves=8,
)


@given(st.data())
def test_whatever_a_regex_matches_starts_with_its_literal_start(data: st.DataObject) -> None:
    regex = data.draw(_regexes)
    try:
        pattern = re.compile(regex)
    except re.error:
        return  # "a??*" and the like
    text = data.draw(st.from_regex(pattern, fullmatch=True)).encode("utf-8", "surrogatepass")
    if re.fullmatch(regex.encode(), text):
        assert text.startswith(literal_prefix(regex.encode()))


@pytest.mark.parametrize(
    ("match", "subject", "names", "is_taken"),
    [
        ({"subject": "CN=a,O=b"}, "CN=a,O=b", (), True),
        ({"subject": "CN=a,O=b"}, "CN=a,O=bc", (), False),
        ({"subject": "CN=a"}, "", ("DNS:a",), False),
        ({"subject": {"prefix": "CN=a,"}}, "CN=a,O=b", (), True),
        ({"subject": {"regex": "CN=[ab],.*"}}, "CN=b,O=c", (), True),
        ({"subject": {"present": True}}, "CN=a", (), True),
        ({"subject": {"present": True}}, "", (), False),
        ({"subject": {"present": False}}, "", (), True),
        ({"subject": {"present": False}}, "CN=a", (), False),
        ({"san": "DNS:b"}, "CN=a", ("DNS:a", "DNS:b"), True),
        ({"san": "DNS:b"}, "CN=a", ("DNS:a", "URI:b"), False),
        ({"san": {"prefix": "URI:spiffe://acme/"}}, "", ("URI:spiffe://acme/x",), True),
        ({"san": {"present": False}}, "CN=a", ("DNS:a",), False),
        ({"san": {"present": False}}, "CN=a", (), True),
        ({"subject": "CN=a", "san": "DNS:b"}, "CN=a", ("DNS:a",), False),
        ({"subject": "CN=a", "san": "DNS:a"}, "CN=a", ("DNS:a",), True),
    ],
)
def test_a_certificate_condition_takes_what_it_says(
    match: dict[str, Any], subject: str, names: tuple[str, ...], is_taken: bool
) -> None:
    table = table_of({"client_cert": match})
    head = Head(client_cert=subject, client_names=names)
    assert (found(table, head) == 0) is is_taken


def test_a_route_for_a_certificate_goes_before_one_for_all() -> None:
    table = table_of({"path": "/a"}, {"path": "/a", "client_cert": {"subject": "CN=a"}})
    assert found(table, Head(b"/a", client_cert="CN=a")) == 1
    assert found(table, Head(b"/a", client_cert="CN=b")) == 0


def test_why_a_certificate_is_not_the_one_is_told() -> None:
    match = {"subject": "CN=a", "san": {"prefix": "DNS:"}}
    conditions = table_of({"client_cert": match}).routes[0].conditions
    told = [
        conditions.mismatch(Head(client_cert=subject, client_names=names))
        for subject, names in (("CN=b", ("DNS:a",)), ("", ()), ("CN=a", ("URI:a", "IP:1")))
    ]
    assert told == [
        ("client_cert", "client certificate's subject is CN=b, expected 'CN=a'"),
        ("client_cert", "client certificate's subject is missing, expected 'CN=a'"),
        (
            "client_cert",
            "client certificate's san is URI:a, IP:1, expected one that starts with 'DNS:'",
        ),
    ]
    assert conditions.mismatch(Head(client_cert="CN=a", client_names=("DNS:a",))) is None
