"""What targets of `notify:` are told of an event: bodies and headers. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from router.config.notify import PagerDuty, Target
from router.control.signing import HEADER, sign
from router.rollouts.state import Event
from router.units import format_share

REASON_MAX_CHARS: Final = 1000
"""Of a reason, in what is sent: Slack takes 3,000 in a block, PagerDuty 1,024 in a summary."""
_SUMMARY_MAX_CHARS: Final = 1024  # PagerDuty, Events API v2
_JSON: Final = {"content-type": "application/json"}

_RESOLVING: Final = frozenset({"started", "restarted", "promoted", "dropped"})
"""Events after which a rollout that went wrong is history: a pager is always told of these."""
_ERRORS: Final = frozenset({"rolled_back", "failed"})
_ALERTING: Final = _ERRORS | {"inconclusive"}
"""What a pager alerts on unless its `events` say otherwise."""

_PHRASES: Final[Mapping[str, str]] = {
    "started": "rollout started",
    "restarted": "rollout starts over",
    "dropped": "rollout is no longer in the config",
    "kept": "stays promoted, its policy was edited",
    "recovered": "the state store had lost the rollout",
    "step": "next step",
    "paused": "paused, needs a person",
    "inconclusive": "inconclusive",
    "baking": "baking",
    "promoted": "promoted",
    "rolled_back": "rolled back",
    "failed": "failed",
    "promote": "told to go on",
    "rollback": "told to roll back",
    "pause": "told to pause",
    "resume": "told to resume",
    "weights": "weights set by hand",
    "switch": "told to switch",
}


def wants(target: Target, event: Event) -> bool:
    """Whether a target is told of an event."""
    if target.routes is not None and event.route not in target.routes:
        return False
    if target.pagerduty is None:
        return event.kind in target.events
    is_written = "events" in target.model_fields_set
    return event.kind in _RESOLVING or event.kind in (target.events if is_written else _ALERTING)


def request(target: Target, event: Event, now_s: float) -> tuple[str, bytes, dict[str, str]]:
    """URL, body and headers of one POST."""
    headers = dict(_JSON)
    if target.slack is not None:
        return target.slack, orjson.dumps(_slack(event)), headers
    if target.pagerduty is not None:
        body = orjson.dumps(_pagerduty(target.pagerduty, event))
        return target.pagerduty.url, body, headers
    assert target.webhook is not None  # noqa: S101 - held by Target._one_kind
    body = orjson.dumps(_generic(event))
    if target.secret is not None:
        headers[HEADER] = sign(target.secret, body, now_s)
    return target.webhook, body, headers


def _generic(event: Event) -> dict[str, Any]:
    return {
        "version": 1,
        "seq": event.seq,
        "route": event.route,
        "kind": event.kind,
        "by": event.by,
        "at": _at(event),
        "reason": _reason(event),
        "generation": event.generation,
        "before": dict(event.before),
        "after": dict(event.after),
    }


def _at(event: Event) -> str:
    """RFC 3339, UTC."""
    return datetime.fromtimestamp(event.at_s, UTC).isoformat(timespec="milliseconds")


def _reason(event: Event) -> str:
    is_short = len(event.reason) <= REASON_MAX_CHARS
    return event.reason if is_short else event.reason[: REASON_MAX_CHARS - 1] + "…"


def _phrase(event: Event) -> str:
    return _PHRASES.get(event.kind, event.kind)


def _shares(event: Event) -> str:
    """`v1 75%, v2 25%`; empty when the event names no weights."""
    weights = event.after.get("weights")
    if not isinstance(weights, Mapping):
        return ""
    return ", ".join(f"{variant} {format_share(share)}" for variant, share in weights.items())


def _slack(event: Event) -> dict[str, Any]:
    """A text for notifications and old clients, and blocks for the rest (Slack's Block Kit)."""
    head = f"*{_escaped(event.route)}* {_phrase(event)}"
    reason = _escaped(_reason(event))
    aside = [f"by {event.by}", _shares(event), f"config {event.generation}"]
    context = _escaped(" · ".join(part for part in aside if part))
    return {
        "text": f"{head}: {reason}",
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": f"{head}\n{reason}"}},
            {"type": "context", "elements": [{"type": "mrkdwn", "text": context}]},
        ],
    }


def _escaped(text: str) -> str:
    """Slack's three control characters (docs: Formatting text for app surfaces)."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _pagerduty(options: PagerDuty, event: Event) -> dict[str, Any]:
    """An event of the Events API v2: one alert per route, resolved when the rollout is well."""
    head = {"routing_key": options.routing_key, "dedup_key": f"pointsman/{event.route}"}
    if event.kind in _RESOLVING:
        return {**head, "event_action": "resolve"}
    summary = f"{event.route} {_phrase(event)}: {_reason(event)}"
    return {
        **head,
        "event_action": "trigger",
        "client": "Pointsman",
        "payload": {
            "summary": summary[:_SUMMARY_MAX_CHARS],
            "source": "pointsman",
            "severity": "error" if event.kind in _ERRORS else "warning",
            "timestamp": _at(event),
            "component": event.route,
            "class": event.kind,
            "custom_details": _generic(event),
        },
    }
