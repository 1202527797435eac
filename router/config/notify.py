"""Who is told when something happens to a rollout: `notify:`.

URLs and keys are secrets here (whoever knows a Slack URL can post to it): they are never shown,
neither in messages nor by `check --diff`.
"""

import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from router.config.values import Name, Whole
from router.strict import Model, mistake_at
from router.units import Duration

TARGETS_MAX: Final = 16
"""Targets in a file: each has a queue and a task."""

EventKind = Literal[
    "started",
    "restarted",
    "dropped",
    "kept",
    "recovered",
    "step",
    "paused",
    "inconclusive",
    "baking",
    "promoted",
    "rolled_back",
    "failed",
    "promote",
    "rollback",
    "pause",
    "resume",
    "weights",
    "switch",
]
"""What can happen to a rollout: first what it does, then what people do."""

CARED_FOR: Final[tuple[EventKind, ...]] = (
    "started",
    "restarted",
    "paused",
    "inconclusive",
    "promoted",
    "rolled_back",
    "failed",
)
"""What people want to know of: beginnings, ends, and when they are needed."""

_URL: Final = r"https?://[A-Za-z0-9_.:\[\]-]+(/[!-~]*)?"


def _url(value: str) -> str:
    if not re.fullmatch(_URL, value) or not _has_place(value):
        # the value is not shown: there may be a secret in it
        raise ValueError("this is not a URL, write https://host/path (its value is not shown)")
    return value


def _has_place(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets without an IPv6 address, a port that is none
        return False


SecretUrl = Annotated[
    str, AfterValidator(_url), Field(max_length=2048, json_schema_extra={"pattern": f"^{_URL}$"})
]


class PagerDuty(Model):
    """A PagerDuty service, told by its Events API v2."""

    routing_key: Annotated[str, Field(min_length=1, max_length=64)] = Field(repr=False)
    """The integration key of the service."""
    url: SecretUrl = Field(default="https://events.pagerduty.com/v2/enqueue", repr=False)
    """Where events go; the EU's is https://events.eu.pagerduty.com/v2/enqueue."""


class Target(Model):
    """Somebody who is told: exactly one of `slack`, `pagerduty`, `webhook`."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": [kind]} for kind in ("slack", "pagerduty", "webhook")]
        }
    )

    name: Name | None = None
    """What metrics and logs call it; by default `slack`, `pagerduty` or `webhook`."""
    slack: SecretUrl | None = Field(default=None, repr=False)
    """An incoming webhook of Slack, or of what takes the same JSON."""
    pagerduty: PagerDuty | None = None
    """An alert while a rollout went wrong."""
    webhook: SecretUrl | None = Field(default=None, repr=False)
    """Gets each event as JSON."""
    secret: Annotated[str, Field(min_length=16, max_length=256)] | None = Field(
        default=None, repr=False
    )
    """Signs what a `webhook` gets, at least 16 characters."""
    events: Annotated[tuple[EventKind, ...], Field(min_length=1)] = CARED_FOR
    """What it is told of."""
    routes: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    """Only of these routes; null: of all."""
    timeout: Annotated[Duration, Field(gt=0, le=60)] = 5.0
    """An answer that takes longer counts as none."""
    retries: Annotated[Whole, Field(ge=0, le=10)] = 5
    """How often it is tried again when it cannot be reached, or answers 429 or 5xx."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Target":
        if sum(one is not None for one in (self.slack, self.pagerduty, self.webhook)) != 1:
            raise ValueError("a target has exactly one of slack, pagerduty, webhook")
        if self.secret is not None and self.webhook is None:
            raise mistake_at(("secret",), "only what a webhook gets is signed; remove the secret")
        return self

    @property
    def label(self) -> str:
        """What metrics and logs call it."""
        if self.name is not None:
            return self.name
        return "slack" if self.slack else "webhook" if self.webhook else "pagerduty"


def _distinct(targets: tuple[Target, ...]) -> tuple[Target, ...]:
    first: dict[str, int] = {}
    for i, target in enumerate(targets):
        if target.label in first:
            raise mistake_at(
                (i,),
                f"notify[{first[target.label]}] is called {target.label!r} too; give one a name",
            )
        first[target.label] = i
    return targets


Targets = Annotated[tuple[Target, ...], Field(max_length=TARGETS_MAX), AfterValidator(_distinct)]
