"""What would change between two configs."""

import pytest

from router.config import compare, render_changes
from tests.config.support import VALID, load

_OLD = """\
backends:
  v1: {endpoints: [http://a:1, http://b:1]}
  v2: {endpoints: [http://c:1]}
routes:
  - name: animals
    match: {path: /a/}
    policy: {type: canary, stable: v1, canary: v2, weight: 10%, sticky: {header: x-user}}
  - {name: rest, backend: v1}
"""


def changes(*edits: tuple[str, str]) -> list[str]:
    new = _OLD
    for old, text in edits:
        assert old in new
        new = new.replace(old, text)
    return render_changes(compare(load(_OLD).config, load(new).config)).splitlines()


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("10%", "30%", "~ routes[animals].policy.weight changes from 10% to 30%"),
        ("x-user", "x-id", "~ routes[animals].policy.sticky.header changes from x-user to x-id"),
        (
            "/a/}",
            "/b/, methods: [GET]}",
            "~ routes[animals].match.path changes from /a/ to /b/\n"
            "~ routes[animals].match.methods changes from nothing to [GET]",
        ),
        (
            "rest, backend: v1",
            "rest, backend: v2",
            "~ routes[rest].policy.backend changes from v1 to v2",
        ),
        (
            "rest, backend: v1",
            "rest, policy: {type: ab, variants: [{backend: v1}, {backend: v2}]}",
            "~ routes[rest].policy changes from the policy single to the policy ab",
        ),
        (
            "[http://a:1, http://b:1]",
            "[{url: http://a:1, weight: 2}, http://d:1]",
            "~ backends.v1.endpoints[http://a:1].weight changes from 1.0 to 2.0\n"
            "- backends.v1.endpoints[http://b:1] is removed\n"
            "+ backends.v1.endpoints[http://d:1] is added",
        ),
        (
            "[http://c:1]}",
            "[http://c:1], health: {path: /h, interval: 2s}, keep_alive: 1m}",
            "~ backends.v2.health changes from nothing to {path: /h, interval: 2s}\n"
            "~ backends.v2.keep_alive changes from 30s to 1m",
        ),
        (
            "backends:",
            "downstream: {body_bytes: 1MiB}\nbackends:",
            "~ downstream.body_bytes changes from 1GiB to 1MiB",
        ),
        (
            "rest, backend: v1}",
            "rest, backend: v1}\n  - {name: new, backend: v1, match: {path: /n}}",
            "+ routes[new] is added",
        ),
        ("name: rest", "name: others", "- routes[rest] is removed\n+ routes[others] is added"),
        (
            "rest, backend: v1",
            "rest, backend: v1, shadow: [{backend: v2, sample: 1%}]",
            "+ routes[rest].shadow[v2] is added",
        ),
    ],
)
def test_a_change_is_told_by_name_and_in_yaml_s_words(old: str, new: str, line: str) -> None:
    assert changes((old, new)) == line.splitlines()


def test_text_that_means_the_same_is_no_change() -> None:
    assert changes(
        ("10%", "0.1"),
        ("backend: v1", "policy: {backend: v1, type: single}"),
        ("backends:", "# note\nworkers: auto\ndrain_timeout: 30000ms\nbackends:"),
    ) == ["nothing would change"]


def test_the_order_of_routes_is_a_change() -> None:
    head, _, rest = _OLD.partition("  - {name: rest, backend: v1}\n")
    new = head.replace("routes:\n", "routes:\n  - {name: rest, backend: v1}\n") + rest
    assert changes((_OLD, new)) == ["~ the order in routes changes to rest, animals"]


def test_what_needs_a_restart_says_so() -> None:
    found = compare(
        load(VALID).config,
        load("workers: 2\nadmin: {listen: '127.0.0.1:1'}\npre_stop: 1s\n" + VALID).config,
    )
    assert [(one.path, one.needs_restart) for one in found] == [
        ("admin.listen", True),
        ("workers", True),
        ("pre_stop", False),
    ]
    assert str(found[1]) == (
        "~ workers changes from auto to 2 (refused at run time, needs a restart)"
    )


def test_a_secret_is_not_shown() -> None:
    (change,) = compare(
        load(VALID).config,
        load("feedback: {key: 0123456789abcdef0123456789abcdef}\n" + VALID).config,
    )
    assert str(change) == "~ feedback.key changes"
