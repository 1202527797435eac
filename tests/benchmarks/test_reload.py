from pathlib import Path

import pytest
import yaml

from benchmarks.openloop import OpenLoop
from benchmarks.reload import APART, TOGETHER, Pair, config_text, verdict
from benchmarks.verdicts import Outcome
from benchmarks.workload import Places

_PLACES = Places(Path("/run/x"), port=1, admin_port=2, v1_port=3, v2_port=4)


def test_a_rewrite_differs_in_every_route_and_in_nothing_else() -> None:
    one, other = (yaml.safe_load(config_text(50, percent, _PLACES)) for percent in (10, 11))
    assert [route["name"] for route in one["routes"]] == [f"m{i}" for i in range(50)]
    for before, after in zip(one.pop("routes"), other.pop("routes"), strict=True):
        assert before["policy"].pop("weight") == "10%"
        assert after["policy"].pop("weight") == "11%"
        assert before == after
    assert one == other


def _pair(arrangement: str, slowest_ms: float, failed: int = 0) -> Pair:
    quiet = OpenLoop(10, 0, 1.0, 1.0, 2.0, 3.0, 4000.0, 5.0)
    loop = OpenLoop(10, failed, 1.0, 1.0, 2.0, 3.0, slowest_ms * 1000, 5.0)
    return Pair(arrangement, quiet, loop, 1)


@pytest.mark.parametrize(
    ("slowest_ms", "failed", "outcome"),
    [(100.0, 0, Outcome.MET), (100.1, 0, Outcome.MISSED), (1.0, 1, Outcome.MISSED)],
)
def test_a_slow_or_failed_request_in_any_round_misses_the_target(
    slowest_ms: float, failed: int, outcome: Outcome
) -> None:
    pairs = [_pair(TOGETHER, 1.0), _pair(TOGETHER, slowest_ms, failed), _pair(APART, 5.0)]
    found = verdict(pairs, TOGETHER)
    assert found.outcome is outcome
    assert found.measured == f"{failed} failed, slowest {slowest_ms:.1f} ms"


def test_each_arrangement_is_judged_by_its_own_rounds() -> None:
    pairs = [_pair(TOGETHER, 500.0), _pair(APART, 5.0)]
    assert verdict(pairs, APART).outcome is Outcome.MET
    assert verdict(pairs, TOGETHER).outcome is Outcome.MISSED
