"""KPIs as guards of rollouts see them: rates of what is bad, sketches of positive numbers. Pure.

1. Of a binary KPI the bad event is counted: a 1 where less is better, else a 0.
2. A time that is a KPI has the sketch of every request's. Of posted numbers each is counted here.
3. What every request is measured by (`rollouts/measured.py`) keeps its name: a KPI that is called
   the same is not counted a second time.
4. Feedback counts in the second in which it is accepted, by the router that accepted it.
"""

from collections.abc import Iterator, Mapping
from math import floor

from router.control.counts import Item
from router.control.kpis import Kpi, Subject
from router.experiments.estimate import Kind
from router.messages import KpiSums, Stats
from router.rollouts.measured import DISTRIBUTIONS, RATES, SKETCH_GROWTH, Measured, bucket_of

Seen = tuple[str, str, Measured]
"""Route, variant, and what is to be added."""
_OWN = (*RATES, *DISTRIBUTIONS)


def seen_by_workers(stats: Stats, subjects: Mapping[str, Subject]) -> Iterator[Seen]:
    """What workers saw of KPIs."""
    for row in stats.kpis:
        sums = KpiSums(*row)
        subject = subjects.get(sums.route)
        kpi = None if subject is None else subject.kpis.get(sums.kpi)
        if kpi is not None and kpi.kind is Kind.BINARY and kpi.name not in _OWN:
            bad = kpi.bad(sums.n, sums.total)
            yield sums.route, sums.variant, Measured(rates={kpi.name: [sums.n, bad]})
    for route, variant, dump in stats.measured:
        times = _times(subjects.get(route))
        if times:
            sketches = Measured.restore(dump).distributions
            found = {kpi.name: sketches[kpi.timed] for kpi in times if kpi.timed in sketches}
            yield route, variant, Measured(distributions=found)


def fed_back(item: Item, subject: Subject) -> Seen:
    """What an accepted item says."""
    measured = Measured()
    for value in item.values:
        kpi = subject.kpis.get(value.kpi)
        if kpi is None or kpi.name in _OWN:
            continue
        if kpi.kind is Kind.BINARY:
            measured.count(kpi.name, 1, kpi.bad(1, value.value))
        elif kpi.kind is Kind.LOGNORMAL:  # its logarithm is what counts
            measured.distributions[kpi.name] = {floor(value.value / SKETCH_GROWTH): 1}
        elif value.value > 0.0:
            measured.distributions[kpi.name] = {bucket_of(value.value): 1}
    return item.arm.route, item.arm.variant, measured


def _times(subject: Subject | None) -> list[Kpi]:
    if subject is None:
        return []
    return [kpi for kpi in subject.kpis.values() if kpi.timed and kpi.name not in _OWN]
