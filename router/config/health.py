"""`health:` and `outlier:` of a backend: how an endpoint that fails is noticed."""

import re
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from router.config.values import Whole
from router.strict import Model
from router.units import Duration, Regex, Share, format_duration

_STATUS_RANGE: Final = r"([2-5][0-9]{2})(?:-([2-5][0-9]{2}))?"


def _status_range(value: object) -> object:
    """`200-399` or `204`, from either or from a bare number."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    match = re.fullmatch(_STATUS_RANGE, value) if isinstance(value, str) else None
    if match is None or (match[2] is not None and match[1] > match[2]):
        raise ValueError(
            f"{value!r} is no status from 200 to 599 and no range of them, write 204 or 200-399"
        )
    return value


StatusRange = Annotated[
    str,
    BeforeValidator(_status_range),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 200, "maximum": 599},
                {"type": "string", "pattern": f"^{_STATUS_RANGE}$"},
            ],
            "description": "a status or a range of them: 204, 200-399",
        }
    ),
]


class HealthCheck(Model):
    """An active check of every endpoint of a backend: exactly one of `path` and `tcp`."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["path"]}, {"required": ["tcp"]}]}
    )

    path: Annotated[str, Field(pattern=r"^/[!-~]*$")] | None = None
    """Target of a GET request, whose answer is looked at."""
    tcp: Literal[True] | None = None
    """Only connect: an endpoint that accepts is healthy."""
    port: Annotated[Whole, Field(ge=1, le=65535)] | None = None
    """Where to check, when that is not the endpoint's own port."""
    host: Annotated[str, Field(pattern=r"^[!-~]{1,255}$")] | None = None
    """The `host` header of the check; by default the endpoint's. Only with `path`."""
    status: Annotated[tuple[StatusRange, ...], Field(min_length=1)] = ("200-399",)
    """Statuses and ranges that are a success. Only with `path`."""
    body: Regex | None = None
    """Must be found in the answer's first 64 KiB. Only with `path`."""
    interval: Annotated[Duration, Field(ge=0.1)] = 5.0
    """From one check of an endpoint to its next; less where an answer is wanted soon."""
    jitter: Annotated[Share, Field(le=0.5)] = 0.1
    """How much an interval may be shorter or longer, so that checks do not come in step."""
    timeout: Annotated[Duration, Field(gt=0)] = 1.0
    """A check that takes longer is a failure."""
    healthy_after: Annotated[Whole, Field(ge=1, le=100)] = 2
    """Successes in a row that make a failed endpoint healthy again."""
    unhealthy_after: Annotated[Whole, Field(ge=1, le=100)] = 3
    """Failures in a row that take an endpoint out."""

    @model_validator(mode="after")
    def _one_kind(self) -> "HealthCheck":
        if (self.path is None) == (self.tcp is None):
            raise ValueError("a health check has exactly one of path and tcp: true")
        given = self.model_fields_set & {"host", "status", "body"}
        if self.tcp and given:
            raise ValueError(f"{min(given)} is for checks with a path; tcp only connects")
        return self

    def expects(self, status: int) -> bool:
        """Whether an answer with this status is a success."""
        bounds = (item.partition("-") for item in self.status)
        return any(int(low) <= status <= int(high or low) for low, _, high in bounds)


class Outlier(Model):
    """When an endpoint is ejected because its requests fail. Each worker ejects by itself."""

    consecutive_failures: Annotated[Whole, Field(ge=1, le=1000)] = 5
    """Failures in a row that eject an endpoint."""
    failure_share: Annotated[Share, Field(gt=0)] = 0.3
    """Share of failed requests above which an endpoint is ejected; 100%: whatever the share."""
    min_requests: Annotated[Whole, Field(ge=1, le=100_000)] = 20
    """After about this many requests an endpoint that fails twice `failure_share` is ejected."""
    window: Annotated[Duration, Field(gt=0)] = 10.0
    """So long after its last failure an endpoint's share begins anew."""
    eject_for: Annotated[Duration, Field(gt=0)] = 30.0
    """How long the first ejection takes; each further one takes twice the last."""
    max_eject_for: Annotated[Duration, Field(gt=0)] = 300.0
    """The longest ejection."""
    max_ejected: Share = 0.5
    """Share of the backend's endpoints that may be ejected at a time: never all, and of any two
    one."""

    @model_validator(mode="after")
    def _longest_is_longest(self) -> "Outlier":
        if self.max_eject_for < self.eject_for:
            shown = format_duration(self.max_eject_for), format_duration(self.eject_for)
            raise ValueError("max_eject_for ({}) is shorter than eject_for ({})".format(*shown))
        return self
