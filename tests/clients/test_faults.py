"""`python -m benchmarks.faults`, looked at for what does not depend on how busy the machine is."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.process

ONLY = "stale,hang,recovery,gone,keep-alive,endless,leak"


ENDLESS = {
    "request line": 414,
    "head": 431,
    "head of many fields": 431,
    "chunk extension": 400,
    "trailers": 400,
}


def test_the_counts_under_faults_are_as_aimed_at(tmp_path: Path) -> None:
    """One test, because one run takes seconds."""
    path = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.faults", "--quick", "--only", ONLY]
    done = subprocess.run([*command, "--json", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = {
        figure["name"]: figure["values"] for figure in json.loads(path.read_text())["figures"]
    }

    def one(start: str) -> dict[str, Any]:
        (values,) = [values for name, values in figures.items() if name.startswith(start)]
        assert isinstance(values, dict)
        return values

    assert one("GET on a stale") == {"answered": 300, "asked": 300}
    assert one("POST on a stale")["most_deliveries"] == 1
    assert one("endpoint hangs")["delivered"] == 1
    assert one("1,000 kept-alive")["errors"] == 0
    assert one("1,000 kept-alive")["upstream_connections"] <= 64
    assert {what: figures[f"endless {what}"]["status"] for what in ENDLESS} == ENDLESS
    assert one("2,000 exchanges")["stuck"] == 0
