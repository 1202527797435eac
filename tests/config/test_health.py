from typing import Any

import pytest
from pydantic import ValidationError

from router.config.health import HealthCheck, Outlier


def check(**settings: Any) -> HealthCheck:
    return HealthCheck.model_validate(settings)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, {200, 204, 302, 303, 399}),
        ([204], {204}),
        (["204"], {204}),
        ([200, "300-302", "503-503"], {200, 302, 503}),
    ],
)
def test_statuses_and_ranges_of_them_are_expected(status: Any, expected: set[int]) -> None:
    built = check(path="/") if status is None else check(path="/", status=status)
    samples = (199, 200, 204, 302, 303, 399, 400, 404, 503)
    assert {code for code in samples if built.expects(code)} == expected


@pytest.mark.parametrize("status", ["2xx", "399-200", "200-600", 99, 600, True, 2.5, "200,204", ""])
def test_what_is_no_status_is_refused(status: Any) -> None:
    with pytest.raises(ValidationError, match="write 204 or 200-399"):
        check(path="/", status=[status])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "exactly one of path and tcp"),
        ({"path": "/", "tcp": True}, "exactly one of path and tcp"),
        ({"tcp": True, "body": "x"}, "body is for checks with a path"),
        ({"tcp": True, "status": [200]}, "status is for checks with a path"),
        ({"path": "/", "status": []}, "at least 1 item"),
        ({"path": "/", "body": "("}, "is not a regular expression"),
        ({"path": "/", "host": "a b"}, "match pattern"),
        ({"path": "/", "port": 0}, "greater than or equal to 1"),
        ({"path": "/", "port": 65536}, "less than or equal to 65535"),
        ({"path": "/", "jitter": "60%"}, "less than or equal to 0.5"),
        ({"path": "no"}, "match pattern"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        check(**settings)


def test_the_longest_ejection_is_not_shorter_than_the_first() -> None:
    with pytest.raises(ValidationError, match=r"max_eject_for \(10s\) is shorter than eject_for"):
        Outlier.model_validate({"eject_for": "1m", "max_eject_for": "10s"})
