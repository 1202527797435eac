"""What a receiver is told to do with signatures works on ours."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from router.control.signing import sign

PAGE = (Path(__file__).parents[2] / "docs" / "notifications.md").read_text("utf-8")
SECRET = "0123456789abcdef"
NOW_S = 1_767_225_600.7


@pytest.fixture
def verify(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    match = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert match is not None
    namespace: dict[str, Any] = {}
    exec(match[1], namespace)  # noqa: S102 - the page's own code is what is tested
    monkeypatch.setattr(namespace["time"], "time", lambda: NOW_S)
    verify: Callable[..., bool] = namespace["is_from_pointsman"]
    return verify


def test_a_signature_is_right_for_its_body_secret_and_time(verify: Callable[..., bool]) -> None:
    header = sign(SECRET, b"body", NOW_S)
    assert verify(SECRET, header, b"body")
    assert not verify(SECRET, header, b"Body")
    assert not verify(SECRET + "x", header, b"body")
    assert not verify(SECRET, header.replace("t=1", "t=2"), b"body")


def test_an_old_signature_is_refused(verify: Callable[..., bool]) -> None:
    assert verify(SECRET, sign(SECRET, b"body", NOW_S - 299), b"body")
    assert not verify(SECRET, sign(SECRET, b"body", NOW_S - 302), b"body")


@pytest.mark.parametrize("header", ["", "t=1", "v1=00", "t=x,v1=00", "nonsense", "t=1,v1=é"])
def test_nonsense_is_refused(verify: Callable[..., bool], header: str) -> None:
    assert not verify(SECRET, header, b"body")
