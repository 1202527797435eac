"""What a worker counts."""

import pytest

from router.data.stats import WorkerStats
from router.messages import LATENCY_BOUNDS_S, RequestCounts


def test_each_code_class_is_a_row_and_a_take_empties_it() -> None:
    stats = WorkerStats()
    tally = stats.tally("r", "v")
    for status in (200, 204, 404, 500, 0):
        tally.observe(status, 0.5)
    rows = [RequestCounts(*row) for row in stats.take(1, 7, {}).requests]
    assert {row.code: row.count for row in rows} == {"2xx": 2, "4xx": 1, "5xx": 1, "abort": 1}
    assert stats.take(1, 8, {}).requests == []


@pytest.mark.parametrize(
    ("elapsed_s", "bucket"), [(0.0, 0), (0.001, 0), (0.0011, 1), (60.0, 14), (61.0, 15)]
)
def test_a_latency_falls_into_the_bucket_whose_upper_bound_holds_it(
    elapsed_s: float, bucket: int
) -> None:
    stats = WorkerStats()
    stats.tally("r", "v").observe(200, elapsed_s)
    (row,) = stats.take(1, 0, {}).requests
    counts = RequestCounts(*row)
    assert len(counts.buckets) == len(LATENCY_BOUNDS_S) + 1
    assert counts.buckets[bucket] == counts.count == 1
    assert counts.sum_s == elapsed_s


def test_counters_and_decisions_are_rows_of_labels() -> None:
    stats = WorkerStats()
    stats.counters["pointsman_retries_total", "v1", "connect"] += 2
    stats.tally("r", "v1").reasons["sticky"] = 3
    message = stats.take(4, 9, {"g": 1.0})
    assert (message.worker, message.ticket, message.gauges) == (4, 9, {"g": 1.0})
    assert sorted(message.counters) == [
        ["pointsman_decisions_total", ["r", "v1", "sticky"], 3],
        ["pointsman_retries_total", ["v1", "connect"], 2],
    ]
    assert stats.take(4, 9, {}).counters == []


def test_a_tally_is_the_same_object_whenever_it_is_asked_for() -> None:
    stats = WorkerStats()
    assert stats.tally("r", "v") is stats.tally("r", "v")
    assert stats.tally("r", "v") is not stats.tally("r", "w")
