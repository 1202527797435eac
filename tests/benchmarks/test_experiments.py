"""The simulation finds what is there and not what is not; figures are for the command itself."""

import argparse
import json
import math
from pathlib import Path

import pytest

from benchmarks import experiments
from router.experiments.experiment import Kpi


def test_what_is_there_is_found_and_what_is_not_is_not() -> None:
    kpi = Kpi("click")
    assert all(math.isfinite(at) for at in experiments.found_at(kpi, (0.1, 0.5), 0.5, 20, 5))
    assert experiments.found_at(kpi, (0.1, 0.1), 0.5, 5, 3) == [math.inf] * 3


def test_a_bandits_course_is_the_same_for_the_same_seed() -> None:
    assert experiments.bandit_course((0.1, 0.3), 1) == experiments.bandit_course((0.1, 0.3), 1)


def test_a_bound_on_false_alarms_has_two_standard_errors() -> None:
    row = experiments._false("x", 7, 100, 0.05)
    assert row.must == "<= 5% + 2 se = 9.36%"
    assert row.is_met
    assert not experiments._false("x", 10, 100, 0.05).is_met


def test_a_must_that_is_missed_is_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [experiments._false("good", 0, 100, 0.05), experiments._false("bad", 50, 100, 0.05)]
    monkeypatch.setattr(experiments, "rows", lambda seeds: iter(found[:seeds]))
    file = tmp_path / "rows.json"
    lines: list[str] = []
    arguments = argparse.Namespace(seeds=1, json=file)
    assert experiments.main(arguments, lines.append) == 0
    arguments.seeds = 2
    assert experiments.main(arguments, lines.append) == 1
    assert "MISSED" in capsys.readouterr().out
    assert [row["name"] for row in json.loads(file.read_text())["rows"]] == ["good", "bad"]
