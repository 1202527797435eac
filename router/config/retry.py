"""`retry:` and `hedge:` of a backend: when a request is sent once more.

The rules by which a worker applies them stand in `data/retry.py`.
"""

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from router.config.values import Whole
from router.strict import Model
from router.units import Duration, Share, Size, format_duration

_WORDS: Final = ("connect", "reset", "timeout")


def _failure(value: object) -> object:
    if value in _WORDS:
        return value
    if isinstance(value, int) and (value == 429 or 500 <= value <= 599):
        return value
    raise ValueError(
        f"{value!r} is no failure to retry on, write connect, reset, timeout, 429 or a status from "
        "500 to 599"
    )


Failure = Annotated[
    Literal["connect", "reset", "timeout"] | int,
    BeforeValidator(_failure),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(_WORDS)},
                {"const": 429},
                {"type": "integer", "minimum": 500, "maximum": 599},
            ],
            "description": "connect, reset, timeout, 429, or a status from 500 to 599",
        }
    ),
]
"""What an attempt may end with that is worth another."""


class Retry(Model):
    """When and how often a request is sent again."""

    attempts: Annotated[Whole, Field(ge=1, le=10)] = 3
    """Times a request is sent at most, the first included; 1: never again."""
    on: tuple[Failure, ...] = ("connect", "reset", 502, 503, 504)
    """What is worth another attempt. `timeout`: no first byte in time."""
    budget: Share = 0.2
    """Retries in progress, as a share of the backend's requests in flight in this worker."""
    budget_min: Annotated[Whole, Field(ge=0, le=10_000)] = 3
    """Retries in progress that are allowed however few requests are in flight."""
    per_try: Annotated[Duration, Field(gt=0)] | None = None
    """How long an attempt may take to its first byte while another may follow. Counts as `timeout`.
    By default as long as `timeout.first_byte`."""
    backoff: Annotated[Duration, Field(gt=0)] = 0.015
    """Longest wait before the first retry; doubled for each further one."""
    backoff_max: Annotated[Duration, Field(gt=0)] = 0.25
    """Longest wait before any retry."""
    buffer: Annotated[Size, Field(le=16 * 1024 * 1024)] = 64 * 1024
    """Bytes of a request kept for a retry; a larger one that has begun to leave is not retried."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Retry":
        if self.backoff > self.backoff_max:
            raise ValueError(
                f"backoff is {format_duration(self.backoff)}, expected no more than backoff_max, "
                f"{format_duration(self.backoff_max)}"
            )
        if self.per_try is not None and "timeout" not in self.on:
            raise ValueError("per_try does nothing unless `on` has timeout")
        return self


class Hedge(Model):
    """A second attempt beside the first, when that is slow."""

    after: Annotated[Duration, Field(gt=0)] = 0.1
    """How long to wait for the first byte before the second attempt. Near the p95 is usual."""
