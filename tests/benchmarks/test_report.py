import json
from dataclasses import replace
from pathlib import Path

from benchmarks import report, workload
from benchmarks.compare import Comparison, Plan, Sample
from benchmarks.meter import Cost
from benchmarks.openloop import OpenLoop
from benchmarks.peers import NGINX, PEERS, POINTSMAN
from benchmarks.probe import Split
from benchmarks.verdicts import Outcome

_MIB = 1024 * 1024
_PLAN = Plan(workload.load("json_canary"), (POINTSMAN, NGINX), 2, 5, 32, 2000)
_SSE = Plan(workload.load("sse"), (POINTSMAN, NGINX), 2, 5, 200, 10_000)


def _sample(name: str, cpu_us: float, p99_us: float, others: float = 0.0) -> Sample:
    return Sample(
        contender=name,
        round=0,
        units=50_000,
        units_per_s=10_000.0,
        open=OpenLoop(10_000, 0, 5.0, 100.0, p99_us, 900.0, 1000.0, 20.0),
        cost=Cost(cpu_us, cpu_us - 1, 0.99, 30 * _MIB, 20 * _MIB),
        load_core=0.5,
        others=others,
    )


def _text(*samples: Sample, plan: Plan = _PLAN) -> str:
    comparison = Comparison(samples, {"nginx": Split(0.1, True)})
    return report.text(plan, comparison, {"nginx": "nginx 1"}, {"kernel": "Linux"})


def _late(*samples: Sample) -> tuple[Sample, ...]:
    return tuple(replace(s, open=replace(s.open, late_p99_us=1001.0)) for s in samples)


_OURS = (_sample("pointsman", 30, 150), _sample("pointsman", 34, 170))
_NGINX = (_sample("nginx", 20, 100), _sample("nginx", 20, 100))


def test_the_report_names_the_machine_versions_and_method() -> None:
    text = _text(*_OURS, *_NGINX)
    assert text.startswith("kernel: Linux\nnginx: nginx 1\n")
    assert "2 interleaved rounds" in text
    assert "| nginx " in text


def test_ratios_to_each_peer_are_shown_with_their_range() -> None:
    lines = [line for line in _text(*_OURS, *_NGINX).splitlines() if line.startswith("| / nginx")]
    assert len(lines) == 1
    assert "1.60 (1.50…1.70)" in lines[0]


def test_a_target_is_met_or_missed_by_the_median_of_the_ratios() -> None:
    assert "met      CPU per request / nginx's: 1.60 (1.50…1.70), target <= 1.8" in _text(
        *_OURS, *_NGINX
    )
    slower = tuple(_sample("pointsman", 40, 150) for _ in range(2))
    assert "MISSED   CPU per request / nginx's: 2.00 (2.00…2.00), target <= 1.8" in _text(
        *slower, *_NGINX
    )


def test_a_missed_target_is_named_in_the_last_line() -> None:
    slower = tuple(_sample("pointsman", 40, 150) for _ in range(2))
    assert _text(*slower, *_NGINX).splitlines()[-1] == (
        "TARGETS MISSED: 1 of 2: CPU per request / nginx's"
    )
    assert _text(*_OURS, *_NGINX).splitlines()[-1].startswith("TARGETS MISSED: 1 of 2: p99")
    faster = tuple(_sample("pointsman", 30, 100) for _ in range(2))
    assert _text(*faster, *_NGINX).splitlines()[-1] == "targets: 2 of 2 met"


def test_a_lower_bound_is_missed_from_below() -> None:
    target = next(target for target in report.TARGETS if not target.is_upper)
    theirs = [replace(_sample("aiohttp", 1, 1), units_per_s=1.0)]
    for ratio, outcome in ((target.bound, Outcome.MET), (target.bound - 0.1, Outcome.MISSED)):
        ours = [replace(theirs[0], units_per_s=ratio)]
        assert target.verdict(ours, theirs).outcome is outcome


def test_a_p99_is_not_judged_when_the_load_was_late_for_either_side() -> None:
    for samples in ((*_late(*_OURS), *_NGINX), (*_OURS, *_late(*_NGINX))):
        text = _text(*samples)
        assert "UNJUDGED p99 in the open loop / nginx's" in text
        assert "the load itself was 1.0 ms late" in text
        assert text.splitlines()[-1] == (
            "targets: 1 of 2 met | not judged: p99 in the open loop / nginx's"
        )
        ratios = next(line for line in text.splitlines() if line.startswith("| / nginx"))
        assert "load too late" in ratios
        assert text.count("TOO LATE") == 1
    assert "TOO LATE" not in _text(*_OURS, *_NGINX)


def test_cost_is_judged_however_late_the_load_was() -> None:
    assert "met      CPU per request / nginx's" in _text(*_late(*_OURS), *_late(*_NGINX))


def test_streams_are_shown_by_their_unit_and_not_judged() -> None:
    text = _text(*_OURS, *_NGINX, plan=_SSE)
    assert "200 streams with 10000 chunks/s in all for 5 s" in text
    assert "CPU µs/chunk" in text
    assert "request" not in text
    assert "target" not in text.lower()


def test_a_target_against_an_absent_peer_is_not_judged() -> None:
    assert "Envoy" not in _text(*_OURS, *_NGINX)


def test_without_the_router_peers_are_shown_and_nothing_is_judged() -> None:
    text = _text(*_NGINX)
    assert "| nginx " in text
    assert "target" not in text.lower()


def test_a_busy_machine_is_warned_about() -> None:
    assert "WARNING" not in _text(*_NGINX)
    assert "WARNING" in _text(*_NGINX, _sample("nginx", 20, 100, others=0.4))


def test_a_full_load_core_is_noted() -> None:
    full = replace(_NGINX[0], load_core=0.99)
    assert "the load core was full for nginx" in _text(full)


def test_the_origin_alone_has_no_cost_and_no_ratio() -> None:
    floor = replace(_sample("origin", 1, 50), cost=None)
    text = _text(floor, replace(floor, round=1), *_OURS, *_NGINX)
    assert "| origin" in text
    assert "| / origin" not in text


def test_the_json_holds_every_sample(tmp_path: Path) -> None:
    comparison = Comparison((*_OURS, *_NGINX), {"nginx": Split(0.1, True)})
    path = tmp_path / "made" / "result.json"
    report.write(path, report.document(_PLAN, comparison, {}, {}))
    read = json.loads(path.read_text())
    assert [sample["contender"] for sample in read["samples"]] == ["pointsman"] * 2 + ["nginx"] * 2
    assert read["samples"][0]["cost"]["cpu_us"] == 30
    assert read["plan"]["workload"] == "json_canary"
    assert [target["outcome"] for target in read["targets"]] == ["met", "MISSED"]


def test_every_target_names_a_peer_there_is() -> None:
    assert {target.peer for target in report.TARGETS} <= {peer.name for peer in PEERS}
