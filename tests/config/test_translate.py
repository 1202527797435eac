"""Pydantic's errors in the words of the YAML: exact lines."""

import pytest

from tests.config.support import VALID, mistakes

_V1 = "backends: {v1: {endpoints: [http://a:1]}, v2: {endpoints: [http://b:1]}}\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("listen: 5", "f:1:9: listen: expected text, found a number (put it in quotes)"),
        ("listen: {}", "f:1:9: listen: expected text, found a mapping"),
        ("workers: four", "f:1:10: workers: expected a whole number or 'auto', found 'four'"),
        ('workers: "4"', "f:1:10: workers: expected a whole number or 'auto', found '4'"),
        ("workers: true", "f:1:10: workers: expected a whole number or 'auto', found true"),
        ("workers: 257", "f:1:10: workers: expected at most 256 or 'auto', found 257"),
        (
            "downstream:",
            "f:1:12: downstream: expected a mapping, found nothing"
            " (give it a value, or remove the key)",
        ),
        ("downstream: []", "f:1:13: downstream: expected a mapping, found a list"),
        (
            "downstream: {head_bytes: 1B}",
            "f:1:26: downstream.head_bytes: expected at least 1KiB, found '1B'",
        ),
        (
            "downstream: {head_bytes: 1}",
            "f:1:26: downstream.head_bytes: expected at least 1024, found 1",
        ),
        (
            "downstream: {idle_timeout: 0s}",
            "f:1:28: downstream.idle_timeout: expected more than 0s, found '0s'",
        ),
        (
            "downstream: {headers: 5.5}",
            "f:1:23: downstream.headers: expected a whole number, found 5.5",
        ),
        (
            "logging: {level: warn}",
            "f:1:18: logging.level: expected 'debug', 'info', 'warning' or 'error', found 'warn'"
            " (did you mean 'warning'?)",
        ),
        (
            "logging: {levle: info}",
            "f:1:11: logging.levle: unknown key 'levle' (did you mean 'level'?)",
        ),
        (
            "logging: {colour: red}",
            "f:1:11: logging.colour: unknown key 'colour' (known: access_sample, format, level)",
        ),
        (
            "logging: {access_sample: 150%}",
            "f:1:26: logging.access_sample: '150%' is not a share between 0% and 100%",
        ),
        ("trusted_proxies: 10.0.0.1", "f:1:18: trusted_proxies: expected a list, found text"),
        (
            "feedback: {path: /f}",
            "f:1:18: feedback.path: expected text that matches ^/-/[a-z0-9/_-]{1,128}$, found '/f'",
        ),
    ],
)
def test_a_mistake_at_the_top_is_told_with_what_would_be_right(text: str, line: str) -> None:
    assert mistakes(f"{text}\n{VALID}") == [line]


@pytest.mark.parametrize(
    ("backend", "line"),
    [
        ("{}", "f:1:16: backends.v1: the key 'endpoints' is missing"),
        ("3", "f:1:16: backends.v1: expected a mapping, found a number"),
        (
            "{endpoints: []}",
            "f:1:28: backends.v1.endpoints: expected at least 1 entry, found 0",
        ),
        (
            "{endpoints: [ftp://a:1]}",
            "f:1:29: backends.v1.endpoints[0]: 'ftp://a:1' is not an endpoint,"
            " write http://host:port or https://host:port",
        ),
        (
            "{endpoints: [{url: http://a:1, weight: 0}]}",
            "f:1:55: backends.v1.endpoints[0].weight: expected more than 0, found 0",
        ),
        (
            "{endpoints: [{url: http://a:1, wieght: 1}]}",
            "f:1:47: backends.v1.endpoints[0].wieght: unknown key 'wieght'"
            " (did you mean 'weight'?)",
        ),
        (
            "{endpoints: [http://a:1], health: {path: x}}",
            "f:1:57: backends.v1.health.path: expected text that matches ^/[!-~]*$, found 'x'",
        ),
    ],
)
def test_a_mistake_in_a_backend_is_told_where_it_is(backend: str, line: str) -> None:
    assert mistakes(f"backends: {{v1: {backend}}}\nroutes: [{{name: r, backend: v1}}]\n") == [line]


def test_a_bad_name_is_told_at_the_key() -> None:
    one = "{endpoints: [http://a:1]}"
    text = f"backends:\n  a b: {one}\n  v1: {one}\nroutes: [{{name: r, backend: v1}}]\n"
    assert mistakes(text) == [
        "f:2:3: backends.\"a b\": 'a b' is not a name, use letters, digits, '.', '_' and '-',"
        " at most 63, starting with a letter or digit"
    ]


@pytest.mark.parametrize(
    ("route", "line"),
    [
        ("{backend: v1}", "f:2:10: routes[0]: the key 'name' is missing"),
        ("{name: r}", "f:2:10: routes[0]: a route has exactly one of backend and policy"),
        ("[]", "f:2:10: routes[0]: expected a mapping, found a list"),
        (
            "{name: r, backend: v1, shadow: {}}",
            "f:2:41: routes[0].shadow: expected a list, found a mapping",
        ),
        (
            "{name: r, backend: v1, match: {methods: [get]}}",
            "f:2:51: routes[0].match.methods[0]: 'get' is not a method, write capitals, like GET"
            " or POST",
        ),
        (
            "{name: r, backend: v1, match: {headers: {x-a: {is: b}}}}",
            "f:2:57: routes[0].match.headers.x-a.is: unknown key 'is'"
            " (known: exact, prefix, present, regex)",
        ),
        (
            "{name: r, backend: v1, match: {headers: {x-a: 1}}}",
            "f:2:56: routes[0].match.headers.x-a: 1 is not text, put it in quotes",
        ),
        ("{name: r, policy: v1}", "f:2:28: routes[0].policy: expected a mapping, found text"),
        (
            "{name: r, policy: {backend: v1}}",
            "f:2:28: routes[0].policy: the key 'type' is missing"
            " (one of ab, bandit, blue_green, canary, recreate, rolling, single)",
        ),
        (
            "{name: r, policy: {type: zz}}",
            "f:2:35: routes[0].policy.type: unknown type 'zz'"
            " (known: ab, bandit, blue_green, canary, recreate, rolling, single)",
        ),
        (
            "{name: r, policy: {type: single}}",
            "f:2:28: routes[0].policy: the key 'backend' is missing",
        ),
        (
            "{name: r, policy: {type: canary, stable: v1, weight: 1%, sticky: {client_ip: true}}}",
            "f:2:28: routes[0].policy: the key 'canary' is missing",
        ),
        (
            "{name: r, policy: {type: canary, stable: v1, canary: v2, weight: 1%,"
            " sticky: {heder: x}}}",
            "f:2:88: routes[0].policy.sticky.heder: unknown key 'heder' (did you mean 'header'?)",
        ),
        (
            "{name: r, policy: {type: canary, stable: v1, canary: [v2], weight: 1%,"
            " sticky: {client_ip: true}}}",
            "f:2:63: routes[0].policy.canary: expected text, found a list",
        ),
        (
            "{name: r, policy: {type: canary, stable: v1, canary: v2, weight: 1%,"
            " sticky: {client_ip: yes}}}",
            "f:2:99: routes[0].policy.sticky.client_ip: expected true, found 'yes'",
        ),
        (
            "{name: r, policy: {type: ab, variants: [{backend: v1, state: of}]}}",
            "f:2:71: routes[0].policy.variants[0].state: expected 'active', 'drain' or 'off',"
            " found 'of' (did you mean 'off'?)",
        ),
        (
            "{name: r, policy: {type: single, backend: v1, single: x}}",
            "f:2:56: routes[0].policy.single: unknown key 'single'",
        ),
    ],
)
def test_a_mistake_in_a_route_is_told_where_it_is(route: str, line: str) -> None:
    assert mistakes(f"{_V1}routes: [{route}]\n") == [line]


def test_a_state_named_off_is_the_word() -> None:
    route = "{name: r, policy: {type: ab, variants: [{backend: v1}, {backend: v2, state: off}]}}"
    assert mistakes(f"{_V1}routes: [{route}]\n") == []


def test_a_thousand_mistakes_are_told_one_by_one() -> None:
    text = VALID + "".join(f"x{i}: 1\n" for i in range(1000))
    assert len(mistakes(text)) == 1000
