"""The demo's YAML says what the demo shows."""

from pathlib import Path

import yaml

from router.demo.routes import BACKENDS, CANARY, ROUTES, SHADOW, config_text

URLS = {name: f"http://127.0.0.1:{8001 + n}" for n, name in enumerate(BACKENDS)}


def test_the_canary_weight_is_all_that_a_rewrite_changes() -> None:
    before = config_text(URLS, Path("/tmp/d/state.db"), 10).splitlines()  # noqa: S108 - only a name
    after = config_text(URLS, Path("/tmp/d/state.db"), 30).splitlines()  # noqa: S108 - only a name
    changed = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    assert changed == [("      weight: 10%", "      weight: 30%")]


def test_every_route_takes_the_requests_the_users_send_to_it() -> None:
    document = yaml.safe_load(config_text(URLS, Path("/state.db"), 10))
    assert [(route["name"], route["policy"]["type"]) for route in document["routes"]] == [
        (route.name, route.policy) for route in ROUTES
    ]
    for written, route in zip(document["routes"], ROUTES, strict=True):
        assert route.target.startswith(written["match"]["path"])
        assert ("sticky" in written["policy"]) == route.is_sticky
    assert document["routes"][0]["policy"]["canary"] == CANARY
    assert document["routes"][0]["shadow"][0]["backend"] == SHADOW
    assert document["state"] == "sqlite:///state.db"
