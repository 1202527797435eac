"""What targets are told, as they get it."""

import hashlib
import hmac
from dataclasses import replace
from typing import Any

import orjson
import pytest

from router.config.notify import EventKind, Target
from router.control.payloads import REASON_MAX_CHARS, request, wants
from router.control.signing import sign
from router.rollouts.state import Event

EVENT = Event(
    "animals",
    "rolled_back",
    "pointsman",
    1_767_225_600.5,
    "errors 9% <b> & more",
    7,
    {"phase": "progressing", "step": 1, "weights": {"v1": 0.75, "v2": 0.25}},
    {"phase": "rolled_back", "step": -1, "weights": {"v1": 1.0, "v2": 0.0}},
    42,
)
SLACK: dict[str, Any] = {"slack": "http://slack/hook"}
PAGER: dict[str, Any] = {"pagerduty": {"routing_key": "key", "url": "http://pager/v2"}}
WEBHOOK: dict[str, Any] = {"webhook": "http://webhook/x"}


def told(options: dict[str, Any], event: Event = EVENT) -> tuple[str, Any, dict[str, str]]:
    url, body, headers = request(Target.model_validate(options), event, 1_767_225_601.9)
    return url, orjson.loads(body), headers


def test_slack_gets_a_text_and_blocks_with_its_control_characters_escaped() -> None:
    url, body, headers = told(SLACK)
    assert url == "http://slack/hook"
    assert headers == {"content-type": "application/json"}
    assert body["text"] == "*animals* rolled back: errors 9% &lt;b&gt; &amp; more"
    section, context = body["blocks"]
    assert section["text"]["text"] == "*animals* rolled back\nerrors 9% &lt;b&gt; &amp; more"
    assert context["elements"][0]["text"] == "by pointsman · v1 100%, v2 0% · config 7"


def test_pagerduty_gets_one_alert_per_route() -> None:
    url, body, _ = told(PAGER)
    assert url == "http://pager/v2"
    assert body["routing_key"] == "key"
    assert body["event_action"] == "trigger"
    assert body["dedup_key"] == "pointsman/animals"
    payload = body["payload"]
    assert payload["summary"] == "animals rolled back: errors 9% <b> & more"
    assert payload["severity"] == "error"
    assert payload["timestamp"] == "2026-01-01T00:00:00.500+00:00"
    assert (payload["component"], payload["class"]) == ("animals", "rolled_back")
    assert payload["custom_details"]["seq"] == 42


def test_an_inconclusive_rollout_is_a_warning() -> None:
    _, body, _ = told(PAGER, replace(EVENT, kind="inconclusive"))
    assert body["payload"]["severity"] == "warning"


@pytest.mark.parametrize("kind", ["promoted", "started", "restarted", "dropped"])
def test_the_alert_is_resolved_when_what_went_wrong_is_history(kind: str) -> None:
    _, body, _ = told(PAGER, replace(EVENT, kind=kind))
    assert body == {
        "routing_key": "key",
        "dedup_key": "pointsman/animals",
        "event_action": "resolve",
    }


def test_a_webhook_gets_the_whole_event() -> None:
    url, body, headers = told(WEBHOOK)
    assert url == "http://webhook/x"
    assert headers == {"content-type": "application/json"}
    assert body == {
        "version": 1,
        "seq": 42,
        "route": "animals",
        "kind": "rolled_back",
        "by": "pointsman",
        "at": "2026-01-01T00:00:00.500+00:00",
        "reason": "errors 9% <b> & more",
        "generation": 7,
        "before": {"phase": "progressing", "step": 1, "weights": {"v1": 0.75, "v2": 0.25}},
        "after": {"phase": "rolled_back", "step": -1, "weights": {"v1": 1.0, "v2": 0.0}},
    }


def test_a_webhook_with_a_secret_is_signed() -> None:
    target = Target.model_validate({**WEBHOOK, "secret": "0123456789abcdef"})
    _, body, headers = request(target, EVENT, 1_767_225_601.9)
    signed = b"1767225601." + body
    digest = hmac.new(b"0123456789abcdef", signed, hashlib.sha256).hexdigest()
    assert headers["x-pointsman-signature"] == f"t=1767225601,v1={digest}"
    assert sign("0123456789abcdef", body + b" ", 1_767_225_601.9) != f"t=1767225601,v1={digest}"


def test_a_long_reason_is_cut() -> None:
    _, body, _ = told(WEBHOOK, replace(EVENT, reason="x" * 5000))
    assert len(body["reason"]) == REASON_MAX_CHARS
    _, body, _ = told(PAGER, replace(EVENT, reason="x" * 5000))
    assert len(body["payload"]["summary"]) <= 1024


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        (SLACK, "started restarted paused inconclusive promoted rolled_back failed"),
        (PAGER, "started restarted dropped inconclusive promoted rolled_back failed"),
        ({**PAGER, "events": ["paused"]}, "started restarted dropped paused promoted"),
        ({**WEBHOOK, "events": ["step", "promote"]}, "step promote"),
    ],
)
def test_targets_are_told_of_what_people_care_about_or_of_what_they_ask_for(
    options: dict[str, Any], kinds: str
) -> None:
    target = Target.model_validate(options)
    found = {kind for kind in EventKind.__args__ if wants(target, replace(EVENT, kind=kind))}
    assert found == set(kinds.split())


def test_a_target_is_told_of_its_routes_only() -> None:
    target = Target.model_validate({**SLACK, "routes": ["plants"]})
    assert not wants(target, EVENT)
    assert wants(target, replace(EVENT, route="plants"))


def test_every_kind_of_event_can_be_told() -> None:
    for kind in EventKind.__args__:
        _, body, _ = told(SLACK, Event("r", kind, "ann", 1.0, "because", 1))
        assert body["text"].startswith("*r* ")
