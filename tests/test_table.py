"""The route table against a plain reading of the rules, and what a match costs."""

import itertools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from router import table as table_module
from router.config.model import Config, Match
from router.explain import build_request, explain, render
from router.policies import Scope
from router.table import Table, build
from tests.heads import Head, found, table_of


def test_a_built_table_carries_config_generation_and_routes_in_file_order() -> None:
    table = table_of({"path": "/b"}, {"path": "/a"})
    assert table.generation == 7
    assert [route.config for route in table.routes] == list(table.config.routes)
    assert [(route.index, route.name, route.salt) for route in table.routes] == [
        (0, "0", "0"),
        (1, "1", "1"),
    ]


def test_a_route_builds_its_assignment_with_its_name_salt_and_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    document = {
        "backends": {"b": {"endpoints": ["http://127.0.0.1:1"]}},
        "routes": [{"name": "r", "backend": "b", "salt": "pepper"}],
    }
    route = build(Config.model_validate(document), 1).routes[0]
    scopes: list[Scope] = []
    monkeypatch.setattr(
        type(route.options), "build", lambda self, scope: scopes.append(scope), raising=True
    )

    def mint() -> str:
        return "0" * 32

    route.build_assignment(mint, {"b": 1.0})
    assert scopes == [Scope("r", "pepper", mint, {"b": 1.0})]


def test_the_most_specific_route_is_tried_first_whatever_the_file_says() -> None:
    table = table_of(
        {},
        {"path": "/v2/"},
        {"path": "/v2/models/"},
        {"path_regex": "/v2/models/.*"},
        {"path": "/v2/models/m"},
        {"path": "/v2/models/m", "headers": {"a": "1"}},
        {"path": "/v2/models/m", "headers": {"a": "1", "b": "2"}},
        {"path": "/v2/models/m", "methods": ["POST"]},
        {"host": "*.org", "path": "/v2/"},
        {"host": "*.example.org"},
        {"host": "api.example.org"},
    )
    both = {b"a": b"1", b"b": b"2"}
    path = b"/v2/models/m"
    assert found(table, Head(path, b"api.example.org")) == 10
    assert found(table, Head(path, b"www.example.org")) == 9
    assert found(table, Head(path, b"www.other.org")) == 8
    assert found(table, Head(path, fields=both)) == 7
    assert found(table, Head(path, fields=both, method=b"GET")) == 6
    assert found(table, Head(path, fields={b"a": b"1"}, method=b"GET")) == 5
    assert found(table, Head(path, method=b"GET")) == 4
    assert found(table, Head(b"/v2/models/n")) == 3
    assert found(table, Head(b"/v2/models")) == 1
    assert found(table, Head(b"/v1")) == 0


def test_a_specific_route_whose_headers_do_not_hold_gives_way_through_all_levels() -> None:
    wanted = {"headers": {"x": {"present": True}}}
    table = table_of(
        {"methods": ["POST"]},
        {"host": "*.org", "path": "/a/", **wanted},
        {"host": "www.example.org", "path": "/a/", **wanted},
        {"host": "www.example.org", "path": "/a/b", "methods": ["PUT"]},
        {"host": "www.example.org", "path_regex": "/a/.*", **wanted},
    )
    assert found(table, Head(b"/a/b", b"www.example.org")) == 0
    assert found(table, Head(b"/a/b", b"www.example.org", b"GET")) is None


def test_equally_specific_routes_are_tried_in_file_order() -> None:
    table = table_of(
        {"path_regex": "/a.*"}, {"path_regex": ".*b"}, {"path_regex": "/a.*", "methods": ["POST"]}
    )
    assert found(table, Head(b"/ab", method=b"GET")) == 0
    assert found(table, Head(b"/xb")) == 1
    assert found(table, Head(b"/ab")) == 2
    table = table_of({"path_regex": ".*b"}, {"path_regex": "/a.*"})  # a shorter literal start first
    assert found(table, Head(b"/ab")) == 0
    twice = {"path": "/a", "headers": {"x": "1"}}
    assert found(table_of(twice, twice), Head(b"/a", fields={b"x": b"1"})) == 0


def test_the_example_in_the_documentation_routes_as_its_table_says() -> None:
    text = (Path(__file__).parent.parent / "docs" / "routing.md").read_text("utf-8")
    document = next(
        yaml.safe_load(block)
        for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
        if block.startswith("routes:")
    )
    endpoints = {"endpoints": ["http://127.0.0.1:8001"]}
    config = Config.model_validate({**document, "backends": {"v1": endpoints, "v2": endpoints}})
    table = build(config, 1)
    rows = re.findall(
        r"^\| `(\S+) (\S+)`(?: with `(\S+): (\S+)`)?(?: to `(\S+)`)? \| `(\S+)` \|$",
        text,
        re.MULTILINE,
    )
    assert len(rows) == text.count("| `POST /") + text.count("| `GET /") == 7
    for method, path, name, value, host, expected in rows:
        fields = {name.encode(): value.encode()} if name else {}
        route = table.match(Head(path.encode(), host.encode(), method.encode(), fields))
        assert route is not None
        assert route.name == expected
    request = build_request("GET", "", "/v2/models/animals/infer", "::1", ["x-beta: no"])
    assert render(explain(table, request)) in text


# --- against a plain reading of the rules --------------------------------------------------------

_HOSTS = ["a.org", "b.a.org", "*.org", "*.a.org", "*.b.a.org"]
_PATHS = ["/", "/a", "/a/", "/a/b", "/a/b/", "/ab", "/b/"]
_REGEXES = ["/a.*", "/a/[bc]", ".*", "/(a|b)/?", "/a/b?.*", "/a|/b/a"]
_HEADERS: list[object] = ["1", "2", {"prefix": "1"}, {"regex": "[12]+"}, {"present": False}]

_matches = st.builds(
    lambda host, path, methods, headers: {
        key: value
        for key, value in {**path, "host": host, "methods": methods, "headers": headers}.items()
        if value
    },
    st.sampled_from([None, *_HOSTS]),
    st.one_of(
        st.just({}),
        st.sampled_from(_PATHS).map(lambda path: {"path": path}),
        st.sampled_from(_REGEXES).map(lambda regex: {"path_regex": regex}),
    ),
    st.sampled_from([None, None, ["GET"], ["GET", "POST"]]),
    st.dictionaries(st.sampled_from("xy"), st.sampled_from(_HEADERS), max_size=2),
)
_heads = st.builds(
    Head,
    st.text("ab/", max_size=6).map(lambda text: b"/" + text.encode()),
    st.sampled_from([b"", b"org", b"a.org", b"b.a.org", b"c.b.a.org", b"c.org", b"ba.org"]),
    st.sampled_from([b"GET", b"POST", b"PUT"]),
    st.dictionaries(st.sampled_from([b"x", b"y"]), st.sampled_from([b"1", b"2", b"12"])),
)


def _holds(match: Match, head: Head) -> bool:
    host, path = head.host.decode(), head.path.decode()
    if match.host is not None and not (
        host.endswith(match.host[1:]) if match.host.startswith("*") else host == match.host
    ):
        return False
    if match.path is not None and not (
        path.startswith(match.path) if match.path.endswith("/") else path == match.path
    ):
        return False
    if match.path_regex is not None and not re.fullmatch(match.path_regex, path):
        return False
    if match.methods is not None and head.method.decode() not in match.methods:
        return False
    for name, condition in (match.headers or {}).items():
        raw = head.fields.get(name.encode())
        value = None if raw is None else raw.decode()
        if condition.present is not None:
            if condition.present is (value is None):
                return False
        elif value is None or not (
            (condition.exact is not None and value == condition.exact)
            or (condition.prefix is not None and value.startswith(condition.prefix))
            or (condition.regex is not None and re.fullmatch(condition.regex, value))
        ):
            return False
    return True


def _specificity(match: Match) -> tuple[object, ...]:
    host, path = match.host or "*", match.path or "/"
    return (
        host.startswith("*"),
        -len(host),
        0 if match.path and not path.endswith("/") else 1 if match.path_regex else 2,
        0 if match.path_regex or not path.endswith("/") else -len(match.path or ""),
        match.methods is None,
        -len(match.headers or {}),
    )


@given(st.lists(_matches, min_size=1, max_size=8), st.lists(_heads, min_size=1, max_size=8))
def test_the_table_finds_what_trying_every_route_in_order_finds(
    matches: list[dict[str, Any]], heads: list[Head]
) -> None:
    table = table_of(*matches)
    for head in heads:
        order = sorted(
            table.routes,
            # exact hosts are all equally specific: only one of them can hold
            key=lambda route: (_specificity(route.config.match), route.index),
        )
        expected = next((r.index for r in order if _holds(r.config.match, head)), None)
        assert found(table, head) == expected


@given(st.data())
def test_every_route_has_a_mismatch_in_words_exactly_when_it_does_not_hold(
    data: st.DataObject,
) -> None:
    table, head = table_of(data.draw(_matches)), data.draw(_heads)
    route = table.routes[0]
    assert (route.conditions.mismatch(head) is None) is (table.match(head) is route)


# --- cost ----------------------------------------------------------------------------------------


class Counted:
    """Counts the interpreter's line events inside the table while it matches."""

    def __init__(self) -> None:
        self.lines = 0

    def trace(self, frame: Any, event: str, argument: object) -> Any:
        if frame.f_globals.get("__name__") not in ("router.table", "router.conditions"):
            return None
        self.lines += event == "line"
        return self.trace


def lines_of(table: Table, head: Head) -> int:
    """Lines of Python run by one match: what it costs, without a clock."""
    counted = Counted()
    before = sys.gettrace()
    sys.settrace(counted.trace)
    try:
        table.match(head)
    finally:
        sys.settrace(before)
    return counted.lines


Kind = tuple[Callable[[int], dict[str, Any]], Callable[[int], Head]]
_KINDS: dict[str, Kind] = {
    "prefix": (
        lambda i: {"path": f"/v2/models/m{i}/"},
        lambda i: Head(b"/v2/models/m%d/infer" % i),
    ),
    "exact": (lambda i: {"path": f"/v2/models/m{i}"}, lambda i: Head(b"/v2/models/m%d" % i)),
    "regex": (
        lambda i: {"path_regex": f"/v2/models/m{i}/[a-z]+"},
        lambda i: Head(b"/v2/models/m%d/infer" % i),
    ),
    "host": (lambda i: {"host": f"m{i}.org"}, lambda i: Head(host=b"m%d.org" % i)),
    "suffix": (lambda i: {"host": f"*.m{i}.org"}, lambda i: Head(host=b"a.m%d.org" % i)),
    "header": (
        lambda i: {"headers": {"x-tenant": f"m{i}"}},
        lambda i: Head(fields={b"x-tenant": b"m%d" % i}),
    ),
    "two headers": (
        lambda i: {"headers": {"x-stage": "live", "x-tenant": f"m{i}"}},
        lambda i: Head(fields={b"x-stage": b"live", b"x-tenant": b"m%d" % i}),
    ),
}


@pytest.mark.parametrize("kind", _KINDS)
def test_a_thousand_routes_cost_no_more_steps_than_ten(kind: str) -> None:
    match, request = _KINDS[kind]
    costs = []
    for size in (10, 1000):
        table = table_of({}, *map(match, range(size)))
        new, remembered = lines_of(table, request(size - 1)), lines_of(table, request(size - 1))
        assert found(table, request(size - 1)) == size
        assert remembered < new
        costs.append((new, remembered, lines_of(table, Head(b"/v2/models/zz/x", b"a.zz.org"))))
    few, many = costs
    assert many == few


def test_headers_are_not_looked_at_when_host_and_path_settle_it() -> None:
    head = Head(b"/a/b")
    assert found(table_of({"path": "/a/"}, {"headers": {"x": "1"}}), head) == 0
    assert head.asked == 0


def test_a_hostile_path_or_host_costs_no_more_steps_than_a_plain_one() -> None:
    table = table_of({"path": "/a/b/"}, {"path": "/a/"}, {"host": "*.org", "path": "/c"}, {})
    plain = lines_of(table, Head(b"/a/x/y", b"x.y.com"))
    assert lines_of(table, Head(b"/a" + b"/" * 30_000, b"x.y.com")) <= plain
    assert lines_of(table, Head(b"/a/x/z", b"a." * 15_000 + b"com")) <= plain


def test_what_is_remembered_is_bounded_and_changes_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(table_module, "_REMEMBERED_MAX_LADDERS", 4)
    table = table_of({"path": "/a/"}, {"path": "/b/"})
    for number, prefix in itertools.product(range(20), (b"/a/", b"/b/", b"/c/")):
        expected = {b"/a/": 0, b"/b/": 1, b"/c/": None}[prefix]
        assert found(table, Head(prefix + b"%d" % number)) == expected
        assert _remembered(table) <= 4
    before = _remembered(table)
    assert found(table, Head(b"/a/" + b"x" * 600)) == 0
    assert _remembered(table) == before


def _remembered(table: Table) -> int:
    match = re.fullmatch(r"<Table \[Generation: 7 \| Routes: 2 \| Remembered: (\d+)]>", repr(table))
    assert match is not None
    return int(match[1])


def test_tables_share_nothing_they_remember() -> None:
    def answers() -> Iterator[int | None]:
        for matches in ([{"path": "/a"}], [{"path": "/b"}, {"path": "/a"}], [{"path": "/c"}]):
            yield found(table_of(*matches), Head(b"/a"))

    assert list(answers()) == [0, 1, None]
