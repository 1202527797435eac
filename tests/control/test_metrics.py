import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from router.config.health import HealthCheck
from router.control.health import Checked
from router.control.metrics import build_registry
from router.control.plane import Plane, ReloadRecord
from router.counters import COUNTERS, GAUGES
from router.messages import LATENCY_BOUNDS_S, Stats
from tests.control.support import BANDIT, PLAIN, idle_plane, loaded

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def busy_plane() -> Plane:
    """A plane in which every metric has a series."""
    plane = idle_plane(loaded(routes=[PLAIN, BANDIT]))
    buckets = [1] * (len(LATENCY_BOUNDS_S) + 1)
    counters = [[name, ["x"] * len(metric.labels), 3] for name, metric in COUNTERS.items()]
    plane.totals.add(
        Stats(0, 0, [["plain", "v1", "2xx", 16, 8.5, buckets]], counters, dict.fromkeys(GAUGES, 2))
    )
    plane.feedback["learner", "accepted"] += 1
    plane.reloads["success"] += 1
    plane.certificates.expiries["a.example"] = 2e9
    checked = Checked(HealthCheck(path="/"), False, 1.0)
    plane.endpoints.health._checked["v1", "http://127.0.0.1:1"] = checked
    plane.endpoints.health.results["v1", "failure"] += 1
    plane.endpoints.resolver.failures["a.example",] += 1
    return plane


def exposition(plane: Plane) -> str:
    return generate_latest(build_registry(plane)).decode()


def samples(plane: Plane) -> dict[str, str]:
    lines = [line for line in exposition(plane).splitlines() if not line.startswith("#")]
    return {name: value for name, _, value in (line.rpartition(" ") for line in lines)}


def test_totals_become_series() -> None:
    found = samples(busy_plane())
    labels = '{code="2xx",route="plain",variant="v1"}'
    assert found[f"pointsman_requests_total{labels}"] == "16.0"
    assert found[f"pointsman_request_duration_seconds_sum{labels}"] == "8.5"
    assert found[f"pointsman_request_duration_seconds_count{labels}"] == "16.0"
    bucket = (
        'pointsman_request_duration_seconds_bucket{code="2xx",le="%s",route="plain",variant="v1"}'
    )
    assert found[bucket % "0.0025"] == "2.0"
    assert found[bucket % "+Inf"] == "16.0"
    assert found['pointsman_refused_total{reason="x"}'] == "3.0"
    assert found["pointsman_requests_in_flight"] == "2.0"
    assert found['pointsman_endpoint_up{backend="v1",endpoint="http://127.0.0.1:1"}'] == "0.0"
    assert found['pointsman_variant_weight{route="learner",variant="v2"}'] == "0.5"
    assert found['pointsman_feedback_total{result="accepted",route="learner"}'] == "1.0"


def test_a_refused_reload_shows_until_the_next_good_one() -> None:
    plane = busy_plane()
    assert samples(plane)["pointsman_config_last_reload_success"] == "1.0"
    plane.last_reload = ReloadRecord("refused", 2.0, "file", ("bad",))
    assert samples(plane)["pointsman_config_last_reload_success"] == "0.0"
    plane.last_reload = ReloadRecord("unchanged", 3.0, "file")
    assert samples(plane)["pointsman_config_last_reload_success"] == "1.0"


def test_two_planes_do_not_share_a_registry() -> None:
    assert samples(busy_plane())["pointsman_workers"] == "0.0"
    assert samples(busy_plane())["pointsman_workers"] == "0.0"


def test_promtool_finds_nothing_to_say() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=exposition(busy_plane()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_metric_has_a_line_in_the_documentation() -> None:
    exposed = set(re.findall(r"^# TYPE (\S+) ", exposition(busy_plane()), re.MULTILINE))
    documented = set(re.findall(r"^\| `([a-z_]+)` \|", DOCS.read_text(), re.MULTILINE))
    assert exposed - documented == set()
    assert documented - exposed == set()
