import pytest

from router.control.totals import Latencies, Totals
from router.messages import LATENCY_BOUNDS_S, Stats

EMPTY = [0] * (len(LATENCY_BOUNDS_S) + 1)


def row(code: str, buckets: dict[int, int], sum_s: float = 1.0) -> list[object]:
    counts = [buckets.get(index, 0) for index in range(len(EMPTY))]
    return ["r", "v1", code, sum(counts), sum_s, counts]


def test_counts_of_all_workers_add_up() -> None:
    totals = Totals()
    totals.add(Stats(0, 0, [row("2xx", {0: 3})], [["pointsman_retries_total", ["v1", "reset"], 2]]))
    totals.add(Stats(1, 0, [row("2xx", {1: 4})], [["pointsman_retries_total", ["v1", "reset"], 5]]))
    series = totals.requests["r", "v1", "2xx"]
    assert (series.count, series.sum_s, series.buckets[:2]) == (7, 2.0, [3, 4])
    assert totals.counters["pointsman_retries_total"] == {("v1", "reset"): 7}


def test_gauges_are_the_latest_of_workers_alive() -> None:
    totals = Totals()
    totals.add(Stats(0, 0, gauges={"g": 5}))
    totals.add(Stats(0, 0, gauges={"g": 2}))
    totals.add(Stats(1, 0, gauges={"g": 10}))
    assert totals.gauge("g") == 12
    totals.forget_gauges(1)
    assert totals.gauge("g") == 2


def test_the_death_of_a_worker_takes_no_count_away() -> None:
    totals = Totals()
    totals.add(Stats(0, 0, [row("2xx", {0: 3})]))
    totals.forget_gauges(0)
    assert totals.requests["r", "v1", "2xx"].count == 3


def test_codes_of_one_variant_are_merged() -> None:
    totals = Totals()
    totals.add(Stats(0, 0, [row("2xx", {0: 3}), row("5xx", {2: 1})]))
    merged = totals.by_variant()["r", "v1"]
    assert merged.latencies.count == 4
    assert merged.codes == {"2xx": 3, "5xx": 1}


@pytest.mark.parametrize(
    ("buckets", "q", "expected"),
    [
        ({}, 0.5, None),
        ({0: 10}, 0.5, 0.0005),
        ({0: 10}, 1.0, 0.001),
        ({0: 50, 3: 50}, 0.5, 0.001),
        ({0: 50, 3: 50}, 0.75, 0.0075),
        ({len(LATENCY_BOUNDS_S): 1}, 0.5, 60.0),
    ],
)
def test_quantiles_are_linear_within_a_bucket(
    buckets: dict[int, int], q: float, expected: float | None
) -> None:
    latencies = Latencies()
    latencies.add(1, 0.0, [buckets.get(index, 0) for index in range(len(EMPTY))])
    assert latencies.quantile(q) == (None if expected is None else pytest.approx(expected))


def test_another_number_of_buckets_is_a_bug_that_shows() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Totals().add(Stats(0, 0, [["r", "v1", "2xx", 1, 0.1, [1]]]))
