"""Rules between mappings."""

import pytest

from tests.config.support import VALID, mistakes, warnings

_BACKENDS = """\
backends: {v1: {endpoints: [http://a:1]}, v2: {endpoints: [http://b:1]}}
"""


def routes(*lines: str) -> str:
    return _BACKENDS + "routes:\n" + "".join(f"  - {line}\n" for line in lines)


@pytest.mark.parametrize(
    ("route", "line"),
    [
        (
            "{name: r, backend: v3}",
            "f:3:24: routes[0].backend: no backend is named 'v3' (known: v1, v2)",
        ),
        (
            "{name: r, policy: {type: single, backend: zz}}",
            "f:3:47: routes[0].policy.backend: no backend is named 'zz' (known: v1, v2)",
        ),
        (
            "{name: r, policy: {type: ab, variants: [{backend: v1}, {backend: zz}]}}",
            "f:3:70: routes[0].policy.variants[1].backend: no backend is named 'zz'"
            " (known: v1, v2)",
        ),
        (
            "{name: r, policy: {type: bandit, variants: [{backend: zz}, {backend: v1}]}}",
            "f:3:59: routes[0].policy.variants[0].backend: no backend is named 'zz'"
            " (known: v1, v2)",
        ),
        (
            "{name: r, backend: v1, shadow: [{backend: zz, sample: 1%}]}",
            "f:3:47: routes[0].shadow[0].backend: no backend is named 'zz' (known: v1, v2)",
        ),
    ],
)
def test_a_backend_that_is_not_there_is_told_where_it_is_named(route: str, line: str) -> None:
    assert mistakes(routes(route)) == [line]


def test_an_unknown_backend_is_told_though_its_policy_is_broken_elsewhere() -> None:
    found = mistakes(
        routes(
            "{name: r, policy: {type: canary, stable: v1, canary: zz, weight: x, sticky: {}}}",
            "{name: s, policy: {type: ab, variants: [{backend: zz, weight: x}]}}",
        )
    )
    assert [line.partition(": ")[2].partition(":")[0] for line in found] == [
        "routes[0].policy.canary",
        "routes[0].policy.weight",
        "routes[0].policy.sticky",
        "routes[1].policy.variants[0].backend",
        "routes[1].policy.variants[0].weight",
    ]


def test_a_shadow_may_also_answer() -> None:
    route = "{name: r, backend: v1, shadow: [{backend: v1, sample: 1%}, {backend: v2, sample: 1%}]}"
    assert mistakes(routes(route)) == []
    assert warnings(routes(route)) == []


@pytest.mark.parametrize(
    "policy",
    [
        "{type: canary, stable: v1, canary: v1, weight: 1%, sticky: {client_ip: true}}",
        "{type: ab, variants: [{backend: v1}, {backend: v1}]}",
        "{type: bandit, variants: [{backend: v1}, {backend: v1}]}",
    ],
)
def test_a_backend_takes_part_in_a_policy_once(policy: str) -> None:
    (line,) = mistakes(routes(f"{{name: r, policy: {policy}}}"))
    assert line.startswith("f:3:23: routes[0].policy: ")
    assert "v1" in line


def test_an_endpoint_is_in_a_backend_once() -> None:
    text = "backends: {v1: {endpoints: [http://a:1, {url: 'http://A:1/'}]}}\n"
    assert mistakes(text + "routes: [{name: r, backend: v1}]\n") == [
        "f:1:16: backends.v1: endpoint http://a:1 is listed twice"
    ]


def test_route_names_are_unique() -> None:
    assert mistakes(
        routes("{name: r, backend: v1, match: {path: /a}}", "{name: r, backend: v2}")
    ) == ["f:4:12: routes[1].name: the route name 'r' is taken by routes[0]"]


def test_of_two_equal_matches_the_later_is_warned_of() -> None:
    text = routes(
        "{name: r, backend: v1, match: {path: /a, methods: [GET, PUT], headers: {A: x, b: y}}}",
        "{name: s, backend: v1, match: {path: /a, methods: [PUT, GET]}}",
        "{name: t, backend: v2, match: {path: /a, methods: [PUT, GET],"
        " headers: {B: {exact: y}, a: x}}}",
    )
    assert warnings(text) == [
        "f:5:35: routes[2].match: matches the same requests as routes[0], which gets them all"
    ]


def test_two_routes_that_match_everything_are_warned_of() -> None:
    assert warnings(routes("{name: r, backend: v1}", "{name: s, backend: v2, match: {}}")) == [
        "f:4:35: routes[1].match: matches the same requests as routes[0], which gets them all"
    ]


def test_a_backend_that_nothing_uses_is_warned_of() -> None:
    assert warnings(routes("{name: r, backend: v1}")) == ["f:1:43: backends.v2: no route uses it"]


def test_a_policy_s_own_warnings_are_told_at_the_policy() -> None:
    policy = "{type: canary, stable: v1, canary: v2, weight: 40%, sticky: {client_ip: true}}"
    (line,) = warnings(routes(f"{{name: r, policy: {policy}}}"))
    assert line.startswith("f:3:23: routes[0].policy: a canary weight of 40% is more than 35%")


@pytest.mark.parametrize(
    ("listen", "admin", "path"),
    [
        ("0.0.0.0:9901", None, "listen"),
        ("'[::]:9901'", None, "listen"),
        ("127.0.0.1:7", "127.0.0.1:7", "admin.listen"),
        ("127.0.0.1:7", "localhost:7", "admin.listen"),
        ("'[::]:7'", "'[::1]:7'", "admin.listen"),
    ],
)
def test_listener_and_admin_api_need_two_addresses(
    listen: str, admin: str | None, path: str
) -> None:
    text = f"listen: {listen}\n" + (f"admin: {{listen: {admin}}}\n" if admin else "") + VALID
    (line,) = mistakes(text)
    assert f": {path}: the admin API and the listener are both on port " in line


@pytest.mark.parametrize(
    ("listen", "admin"),
    [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("127.0.0.2:7", "127.0.0.1:7"),
        ("0.0.0.0:7", "'[::1]:7'"),
        ("0.0.0.0:7", "127.0.0.1:8"),
    ],
)
def test_addresses_that_do_not_overlap_are_fine(listen: str, admin: str) -> None:
    assert mistakes(f"listen: {listen}\nadmin: {{listen: {admin}}}\n{VALID}") == []


@pytest.mark.parametrize("text", ["backends: 3\nroutes: 4\n", "routes: [3, {}, {policy: 3}]\n"])
def test_what_has_no_shape_is_passed_over(text: str) -> None:
    assert all("no backend is named" not in line for line in mistakes(text))
