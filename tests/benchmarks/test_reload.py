from pathlib import Path

import yaml

from benchmarks.reload import config_text
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
