"""What a comparison says: a table, the targets, and a JSON document."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.compare import Comparison, Plan, Sample
from benchmarks.figures import Spread, paired_ratios, short, table
from benchmarks.peers import POINTSMAN

_Metric = Callable[[Sample], float]
_MIB: Final = 1024 * 1024
_LOAD_FULL: Final = 0.95
_OTHERS_MAX: Final = 0.1


def _two_places(value: float) -> str:
    return f"{value:.2f}"


def _cpu_us(sample: Sample) -> float:
    return sample.cost.cpu_us if sample.cost else 0.0


def _rss_mib(sample: Sample) -> float:
    cost = sample.cost
    return (cost.rss_root_bytes + cost.rss_descendants_bytes) / _MIB if cost else 0.0


def _requests_per_s(sample: Sample) -> float:
    return sample.closed.requests_per_s


def _p99_us(sample: Sample) -> float:
    return sample.open.p99_us


@dataclass(frozen=True, slots=True)
class Target:
    """Our `metric` / the peer's is to be at most (or at least) `bound`, in the same run."""

    words: str
    peer: str
    metric: _Metric
    bound: float
    is_upper: bool = True

    def verdict(self, ratio: Spread) -> str:
        """The judgement by the median, with the range beside it."""
        is_met = ratio.median <= self.bound if self.is_upper else ratio.median >= self.bound
        shown = f"{self.words}: {ratio.show(_two_places)}"
        sign = "<=" if self.is_upper else ">="
        return f"{'met   ' if is_met else 'MISSED'} {shown}, target {sign} {self.bound:g}"


TARGETS: Final = (
    Target("CPU per request / Envoy's", "envoy", _cpu_us, 0.75),
    Target("CPU per request / nginx's", "nginx", _cpu_us, 1.8),
    Target("requests/s / an aiohttp proxy's", "aiohttp", _requests_per_s, 4.0, is_upper=False),
    Target("p99 in the open loop / nginx's", "nginx", _p99_us, 1.5),
)


def text(
    plan: Plan, comparison: Comparison, versions: dict[str, str], facts: dict[str, str]
) -> str:
    """The whole report, as printed."""
    by_name = _by_name(comparison.samples)
    parts = [
        "\n".join(f"{name}: {value}" for name, value in (facts | versions).items()),
        _how(plan),
        _costs(by_name),
        _latencies(by_name),
    ]
    if POINTSMAN.name in by_name:
        parts += [_ratios(by_name), _verdicts(by_name)]
    return "\n\n".join(part for part in [*parts, _remarks(plan, comparison)] if part)


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
    return (
        f"workload {plan.workload.name}: {plan.rounds} interleaved rounds, each proxy started "
        f"afresh; closed loop of {plan.connections} connections for {plan.seconds} s, then an open "
        f"loop of {plan.rate}/s for {plan.seconds} s. Median (min…max)."
    )


def _spread(samples: Sequence[Sample], metric: _Metric) -> str:
    return Spread.of(map(metric, samples)).show(short)


def _percent(samples: Sequence[Sample], metric: _Metric) -> str:
    return f"{Spread.of(map(metric, samples)).median * 100:.0f} %"


def _costs(by_name: dict[str, list[Sample]]) -> str:
    rows = []
    for name, samples in by_name.items():
        has_cost = samples[0].cost is not None
        rows.append(
            [
                name,
                _spread(samples, _cpu_us) if has_cost else "-",
                _spread(samples, _requests_per_s),
                _spread(samples, _rss_mib) if has_cost else "-",
                _percent(samples, lambda s: s.cost.core if s.cost else 0.0) if has_cost else "-",
                _percent(samples, lambda s: s.load_core),
            ]
        )
    header = ["closed loop", "CPU µs/request", "requests/s", "RSS MiB", "its core", "load core"]
    return table(header, rows)


def _latencies(by_name: dict[str, list[Sample]]) -> str:
    rows = [
        [
            name,
            _spread(samples, lambda s: s.open.p50_us),
            _spread(samples, _p99_us),
            _spread(samples, lambda s: s.open.p999_us),
        ]
        for name, samples in by_name.items()
    ]
    return table(["open loop", "p50 µs", "p99 µs", "p99.9 µs"], rows)


def _ratios(by_name: dict[str, list[Sample]]) -> str:
    ours = by_name[POINTSMAN.name]
    rows = [
        [f"/ {name}", *(_ratio(ours, samples, metric) for metric in _COMPARED)]
        for name, samples in by_name.items()
        if name != POINTSMAN.name and samples[0].cost is not None
    ]
    header = ["pointsman", "CPU/request", "requests/s", "p99", "RSS"]
    return table(header, rows) if rows else ""


_COMPARED: Final[tuple[_Metric, ...]] = (_cpu_us, _requests_per_s, _p99_us, _rss_mib)


def _ratio(ours: Sequence[Sample], theirs: Sequence[Sample], metric: _Metric) -> str:
    spread = paired_ratios([metric(s) for s in ours], [metric(s) for s in theirs])
    return spread.show(_two_places)


def _verdicts(by_name: dict[str, list[Sample]]) -> str:
    ours = by_name[POINTSMAN.name]
    lines = []
    for target in TARGETS:
        if theirs := by_name.get(target.peer):
            pairs = [target.metric(s) for s in ours], [target.metric(s) for s in theirs]
            lines.append(target.verdict(paired_ratios(*pairs)))
    worker = Spread.of(s.cost.cpu_descendants_us for s in ours if s.cost)
    lines.append(f"pointsman's worker alone: {worker.show(short)} µs of CPU per request")
    return "\n".join(lines)


def _remarks(plan: Plan, comparison: Comparison) -> str:
    lines = [
        f"note: {peer.name} splits per request, not per user: it has no split by header"
        for peer in plan.contenders
        if not peer.is_sticky
    ]
    for name, samples in _by_name(comparison.samples).items():
        if samples[0].cost and Spread.of(s.load_core for s in samples).median > _LOAD_FULL:
            lines.append(f"note: the load core was full for {name}, which can do more requests/s")
    others = Spread.of(sample.others for sample in comparison.samples)
    if others.high > _OTHERS_MAX:
        lines.append(
            f"WARNING: other programs took {others.show(short)} cores meanwhile; "
            "repeat on an idle machine"
        )
    return "\n".join(lines)
