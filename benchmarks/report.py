"""What a comparison says: a table, the targets, and a JSON document."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.compare import Comparison, Plan, Sample
from benchmarks.figures import Spread, paired_ratios, short, table
from benchmarks.peers import POINTSMAN
from benchmarks.verdicts import Outcome, Verdict, judged, summary

_Metric = Callable[[Sample], float]
_MIB: Final = 1024 * 1024
_LOAD_FULL: Final = 0.95
_OTHERS_MAX: Final = 0.1
LATE_MAX_US: Final = 1000.0
"""A load that is later than this (p99) says little of a proxy's p99."""


def _two_places(value: float) -> str:
    return f"{value:.2f}"


def _cpu_us(sample: Sample) -> float:
    return sample.cost.cpu_us if sample.cost else 0.0


def _rss_mib(sample: Sample) -> float:
    cost = sample.cost
    return (cost.rss_root_bytes + cost.rss_descendants_bytes) / _MIB if cost else 0.0


def _units_per_s(sample: Sample) -> float:
    return sample.units_per_s


def _p99_us(sample: Sample) -> float:
    return sample.open.p99_us


def _late_us(sample: Sample) -> float:
    return sample.open.late_p99_us


def _lateness_us(samples: Sequence[Sample]) -> float:
    """The median of the rounds, as everything else that is judged."""
    return Spread.of(map(_late_us, samples)).median


def _millis(micros: float) -> str:
    return f"{micros / 1000:.1f} ms"


@dataclass(frozen=True, slots=True)
class Target:
    """Our `metric` / the peer's is to be at most (or at least) `bound`, in the same run.

    A target `of_latency` is judged only when the client of the load was on time.
    """

    words: str
    peer: str
    metric: _Metric
    bound: float
    is_upper: bool = True
    of_latency: bool = False

    def verdict(self, ours: Sequence[Sample], theirs: Sequence[Sample]) -> Verdict:
        """The judgement by the median of the ratios, round by round."""
        ratio = paired_ratios([self.metric(s) for s in ours], [self.metric(s) for s in theirs])
        is_met = ratio.median <= self.bound if self.is_upper else ratio.median >= self.bound
        late_us = max(_lateness_us(ours), _lateness_us(theirs))
        is_late = self.of_latency and late_us > LATE_MAX_US
        return Verdict(
            self.words,
            Outcome.UNJUDGED if is_late else judged(is_met),
            ratio.show(_two_places),
            f"{'<=' if self.is_upper else '>='} {self.bound:g}",
            f"the load itself was {_millis(late_us)} late" if is_late else "",
        )


TARGETS: Final = (
    Target("CPU per request / Envoy's", "envoy", _cpu_us, 0.75),
    Target("CPU per request / nginx's", "nginx", _cpu_us, 1.8),
    Target("requests/s / an aiohttp proxy's", "aiohttp", _units_per_s, 4.0, is_upper=False),
    Target("p99 in the open loop / nginx's", "nginx", _p99_us, 1.5, of_latency=True),
)
"""Of the workload with a split, for which the router is made; others are shown, not judged."""


def verdicts(plan: Plan, comparison: Comparison) -> list[Verdict]:
    """One for each target whose peer was measured."""
    by_name = _by_name(comparison.samples)
    ours = by_name.get(POINTSMAN.name)
    if not ours or not plan.workload.is_split:
        return []
    return [t.verdict(ours, by_name[t.peer]) for t in TARGETS if t.peer in by_name]


def text(
    plan: Plan, comparison: Comparison, versions: dict[str, str], facts: dict[str, str]
) -> str:
    """The whole report, as printed."""
    by_name = _by_name(comparison.samples)
    unit = plan.workload.unit
    found = verdicts(plan, comparison)
    parts = [
        "\n".join(f"{name}: {value}" for name, value in (facts | versions).items()),
        _how(plan),
        _costs(by_name, unit),
        _latencies(by_name),
    ]
    if ours := by_name.get(POINTSMAN.name):
        worker = Spread.of(s.cost.cpu_descendants_us for s in ours if s.cost)
        own = f"pointsman's worker alone: {worker.show(short)} µs of CPU per {unit}"
        parts += [_ratios(by_name, unit), "\n".join([*(v.line() for v in found), own])]
    parts += [_remarks(plan, comparison), summary(found)]
    return "\n\n".join(part for part in parts if part)


def document(
    plan: Plan, comparison: Comparison, versions: dict[str, str], facts: dict[str, str]
) -> dict[str, Any]:
    """Everything measured, for machines. Units are in the names."""
    settings = {key: getattr(plan, key) for key in ("rounds", "seconds", "connections", "rate")}
    return {
        "facts": facts,
        "versions": versions,
        "plan": {"workload": plan.workload.name, **settings},
        "splits": {name: asdict(split) for name, split in comparison.splits.items()},
        "samples": [asdict(sample) for sample in comparison.samples],
        "targets": [
            {"target": v.words, "outcome": v.outcome.value, "ratio": v.measured, "bound": v.bound}
            for v in verdicts(plan, comparison)
        ],
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as JSON, creating the directory when missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def _by_name(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    grouped: dict[str, list[Sample]] = {}
    for sample in samples:
        grouped.setdefault(sample.contender, []).append(sample)
    return grouped


def _how(plan: Plan) -> str:
    rounds = f"workload {plan.workload.name}: {plan.rounds} interleaved rounds, each proxy started"
    seconds, connections = f"for {plan.seconds} s", plan.connections
    if plan.workload.stream:
        loops = f"{connections} streams with {plan.rate} {plan.workload.unit}s/s in all {seconds}"
    elif plan.workload.is_fresh:
        loops = f"new clients one after the other {seconds}; latency from connecting to the answer"
    else:
        loops = (
            f"closed loop of {connections} connections {seconds}, then an open loop of "
            f"{plan.rate}/s {seconds}"
        )
    return f"{rounds} afresh; {loops}. Median (min…max)."


def _spread(samples: Sequence[Sample], metric: _Metric) -> str:
    return Spread.of(map(metric, samples)).show(short)


def _percent(samples: Sequence[Sample], metric: _Metric) -> str:
    return f"{Spread.of(map(metric, samples)).median * 100:.0f} %"


def _costs(by_name: dict[str, list[Sample]], unit: str) -> str:
    rows = []
    for name, samples in by_name.items():
        has_cost = samples[0].cost is not None
        rows.append(
            [
                name,
                _spread(samples, _cpu_us) if has_cost else "-",
                _spread(samples, _units_per_s),
                _spread(samples, _rss_mib) if has_cost else "-",
                _percent(samples, lambda s: s.cost.core if s.cost else 0.0) if has_cost else "-",
                _percent(samples, lambda s: s.load_core),
            ]
        )
    return table(["cost", f"CPU µs/{unit}", f"{unit}s/s", "RSS MiB", "its core", "load core"], rows)


def _latencies(by_name: dict[str, list[Sample]]) -> str:
    rows = [
        [
            name,
            _spread(samples, lambda s: s.open.p50_us),
            _spread(samples, _p99_us),
            _spread(samples, lambda s: s.open.p999_us),
            _spread(samples, _late_us),
            "TOO LATE" if _lateness_us(samples) > LATE_MAX_US else "on time",
        ]
        for name, samples in by_name.items()
    ]
    return table(["open loop", "p50 µs", "p99 µs", "p99.9 µs", "load late, p99 µs", ""], rows)


def _ratios(by_name: dict[str, list[Sample]], unit: str) -> str:
    ours = by_name[POINTSMAN.name]
    compared = (_cpu_us, _units_per_s, _p99_us, _rss_mib)
    rows = [
        [f"/ {name}", *(_ratio(ours, samples, metric) for metric in compared)]
        for name, samples in by_name.items()
        if name != POINTSMAN.name and samples[0].cost is not None
    ]
    header = ["pointsman", f"CPU/{unit}", f"{unit}s/s", "p99", "RSS"]
    return table(header, rows) if rows else ""


def _ratio(ours: Sequence[Sample], theirs: Sequence[Sample], metric: _Metric) -> str:
    if metric is _p99_us and max(_lateness_us(ours), _lateness_us(theirs)) > LATE_MAX_US:
        return "load too late"
    spread = paired_ratios([metric(s) for s in ours], [metric(s) for s in theirs])
    return spread.show(_two_places)


def _remarks(plan: Plan, comparison: Comparison) -> str:
    lines = [
        f"note: {peer.name} splits per request, not per user: it has no split by header"
        for peer in plan.contenders
        if plan.workload.is_split and not peer.is_sticky
    ]
    for name, samples in _by_name(comparison.samples).items():
        if samples[0].cost and Spread.of(s.load_core for s in samples).median > _LOAD_FULL:
            lines.append(f"note: the load core was full for {name}, which can do more")
    others = Spread.of(sample.others for sample in comparison.samples)
    if others.high > _OTHERS_MAX:
        lines.append(
            f"WARNING: other programs took {others.show(short)} cores meanwhile; "
            "repeat on an idle machine"
        )
    return "\n".join(lines)
