"""`python -m benchmarks.faults`, looked at for what does not depend on how busy the machine is."""

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.process

ONLY = "stale,hang,recovery,gone,keep-alive,endless,leak"


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Name -> values."""
    path = tmp_path_factory.mktemp("faults") / "figures.json"
    command = [sys.executable, "-m", "benchmarks.faults", "--quick", "--only", ONLY]
    done = subprocess.run([*command, "--json", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "| GET on a stale pooled connection" in done.stdout
    return {figure["name"]: figure["values"] for figure in json.loads(path.read_text())["figures"]}


def one(figures: dict[str, Any], start: str) -> dict[str, float]:
    (values,) = [values for name, values in figures.items() if name.startswith(start)]
    assert isinstance(values, dict)
    return values


def test_every_get_on_a_stale_pooled_connection_is_answered(figures: dict[str, Any]) -> None:
    assert one(figures, "GET on a stale") == {"answered": 300, "asked": 300}


def test_no_post_is_delivered_twice(figures: dict[str, Any]) -> None:
    assert one(figures, "POST on a stale")["most_deliveries"] == 1


def test_a_request_is_not_repeated_because_its_endpoint_hangs(figures: dict[str, Any]) -> None:
    assert one(figures, "endpoint hangs")["delivered"] == 1


def test_a_crowd_of_kept_alive_clients_shares_a_bounded_pool(figures: dict[str, Any]) -> None:
    values = one(figures, "1,000 kept-alive")
    assert values["errors"] == 0
    assert values["upstream_connections"] <= 64


@pytest.mark.parametrize(
    ("what", "status"),
    [
        ("request line", 414),
        ("head", 431),
        ("head of many fields", 431),
        ("chunk extension", 400),
        ("trailers", 400),
    ],
)
def test_what_does_not_end_is_refused(figures: dict[str, Any], what: str, status: int) -> None:
    assert figures[f"endless {what}"]["status"] == status


def test_nothing_is_stuck_after_exchanges_were_broken_off(figures: dict[str, Any]) -> None:
    assert one(figures, "5,000 exchanges")["stuck"] == 0
