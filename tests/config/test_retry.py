"""`retry:` and `hedge:` as they may stand in the file."""

from typing import Any

import pytest
from pydantic import ValidationError

from router.config.backends import Backend
from router.config.retry import Hedge, Retry


def backend(**settings: Any) -> Backend:
    return Backend.model_validate({"endpoints": ["http://a:1"], **settings})


def test_three_attempts_within_a_fifth_are_the_default_and_no_hedge() -> None:
    config = backend()
    assert config.retry == Retry(
        attempts=3,
        on=("connect", "reset", 502, 503, 504),
        budget=0.2,
        budget_min=3,
        per_try=None,
        backoff="15ms",
        backoff_max="250ms",
        buffer="64KiB",
    )
    assert config.hedge is None


def test_everything_can_be_said() -> None:
    config = backend(
        retry={"attempts": 1, "on": ["timeout", 429, 500, 599], "per_try": "2s", "budget": "5%"},
        hedge={"after": "30ms"},
    )
    assert config.retry.on == ("timeout", 429, 500, 599)
    assert (config.retry.per_try, config.retry.budget) == (2.0, 0.05)
    assert config.hedge == Hedge(after="30ms")
    assert backend(hedge={}).hedge == Hedge(after="100ms")


@pytest.mark.parametrize("failure", ["refused", "503", 404, 428, 499, 600, True, 503.0, None])
def test_what_is_no_failure_worth_a_retry_is_refused(failure: object) -> None:
    with pytest.raises(ValidationError, match="is no failure to retry on"):
        backend(retry={"on": [failure]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attempts": 0}, "greater than or equal to 1"),
        ({"attempts": 11}, "less than or equal to 10"),
        ({"budget": "101%"}, "is not a share"),
        ({"budget_min": -1}, "greater than or equal to 0"),
        ({"buffer": "17MiB"}, "less than or equal to 16777216"),
        ({"backoff": "300ms"}, "backoff is 300ms, expected no more than backoff_max, 250ms"),
        ({"per_try": "1s"}, "per_try does nothing unless `on` has timeout"),
        ({"per_try": 0, "on": ["timeout"]}, "greater than 0"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        backend(retry=settings)
