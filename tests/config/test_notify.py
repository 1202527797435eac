"""`notify:`: who is told, and what a mistake there says, without showing a secret."""

from typing import Any

import orjson
import pytest

from router.config import ConfigError, load_text
from router.config.diff import compare, render_changes
from router.config.model import Config
from router.config.notify import TARGETS_MAX

SLACK = {"slack": "https://hooks.slack.com/services/SECRET"}
PAGER = {"pagerduty": {"routing_key": "SECRET"}}
WEBHOOK = {"webhook": "https://x.example/SECRET", "secret": "SECRET-SECRET-SECRET"}


def config(*targets: Any) -> Config:
    document = {
        "listen": "127.0.0.1:0",
        "admin": {"listen": "127.0.0.1:0"},
        "backends": {"v1": {"endpoints": ["http://127.0.0.1:1"]}},
        "routes": [{"name": "animals", "backend": "v1"}],
        "notify": targets,
    }
    return load_text(orjson.dumps(document, option=orjson.OPT_INDENT_2), "r.yaml", {}).config


def problem(*targets: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        config(*targets)
    [found] = caught.value.problems
    return str(found)


def test_targets_are_called_by_their_kind_or_by_their_name() -> None:
    named = {**WEBHOOK, "name": "audit"}
    targets = config(SLACK, PAGER, WEBHOOK, named).notify
    assert [one.label for one in targets] == ["slack", "pagerduty", "webhook", "audit"]
    assert targets[1].pagerduty is not None
    assert targets[1].pagerduty.url == "https://events.pagerduty.com/v2/enqueue"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"slack": "htps://SECRET"}, "slack: this is not a URL, write https://host/path"),
        ({"slack": "https://SECRET:99999/"}, "slack: this is not a URL"),
        ({"slack": "https://[SECRET]/"}, "slack: this is not a URL"),
        ({"slack": "https://user:SECRET@host/"}, "slack: this is not a URL"),
        ({"webhook": "SECRET"}, "webhook: this is not a URL"),
        ({"pagerduty": {"routing_key": "k", "url": "SECRET"}}, "pagerduty.url: this is not a URL"),
        ({"pagerduty": {}}, "pagerduty: the key 'routing_key' is missing"),
        ({**SLACK, **WEBHOOK}, "a target has exactly one of slack, pagerduty, webhook"),
        ({}, "a target has exactly one of slack, pagerduty, webhook"),
        ({**SLACK, "secret": "SECRET-SECRET-SECRET"}, "secret: only what a webhook gets is signed"),
        ({**WEBHOOK, "secret": "SECRET"}, "secret: expected at least 16 characters, found 6"),
        ({**SLACK, "events": ["rolledback"]}, "did you mean 'rolled_back'?"),
        ({**SLACK, "events": []}, "events: expected at least 1 entry"),
        ({**SLACK, "routes": ["animal"]}, "routes[0]: no route is named 'animal' (did you mean"),
        ({**SLACK, "timeout": "2m"}, "timeout: expected at most 1m, found '2m'"),
        ({**SLACK, "retries": 11}, "retries: expected at most 10, found 11"),
        ({**SLACK, "channel": "#x"}, "channel: unknown key 'channel'"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_without_the_secret(
    target: dict[str, Any], said: str
) -> None:
    found = problem(target)
    assert said in found
    assert "notify[0]" in found
    assert found.startswith("r.yaml:")
    assert "SECRET" not in found


def test_two_targets_of_one_kind_need_names() -> None:
    found = problem(SLACK, {**SLACK, "events": ["failed"]})
    assert found.endswith("notify[1]: notify[0] is called 'slack' too; give one a name")
    assert len(config(SLACK, {**SLACK, "name": "failures"}).notify) == 2


def test_targets_are_bounded() -> None:
    targets = [{**SLACK, "name": f"t{i}"} for i in range(TARGETS_MAX + 1)]
    assert "expected at most 16 entries" in problem(*targets)


def test_secrets_are_not_shown_by_repr() -> None:
    assert "SECRET" not in repr(config(SLACK, PAGER, WEBHOOK))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ([SLACK], [{"slack": "https://SECRET/2"}], "~ notify[slack].slack changes"),
        ([SLACK], [SLACK, PAGER], "+ notify[pagerduty] is added"),
        ([SLACK], [{**SLACK, "timeout": "9s"}], "~ notify[slack].timeout changes from 5s to 9s"),
        (
            [{**PAGER, "name": "x"}],
            [{**SLACK, "name": "x"}],
            "~ notify[x].slack changes\n~ notify[x].pagerduty changes from "
            "{routing_key: (not shown)} to nothing",
        ),
        (
            [WEBHOOK],
            [{**WEBHOOK, "secret": "SECRET-2-SECRET-2"}],
            "~ notify[webhook].secret changes",
        ),
    ],
)
def test_a_comparison_names_what_changes_but_no_secret(old: Any, new: Any, said: str) -> None:
    shown = render_changes(compare(config(*old), config(*new)))
    assert shown == said
    assert "SECRET" not in shown
