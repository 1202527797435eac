import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.meter import Reading
from benchmarks.procs import Usage

_SPENT = Usage(root_ns=2_000_000, descendants_ns=8_000_000)
_READING = Reading(100_000_000, _SPENT, load_ns=50_000_000, busy_ns=90_000_000, rss_bytes=(3, 4))


def test_cpu_time_is_divided_by_the_units() -> None:
    cost = _READING.cost(100)
    assert cost is not None
    assert (cost.cpu_us, cost.cpu_descendants_us) == (100.0, 80.0)
    assert cost.core == 0.1
    assert (cost.rss_root_bytes, cost.rss_descendants_bytes) == (3, 4)


def test_what_neither_proxy_nor_load_spent_is_of_others() -> None:
    assert _READING.load_core == 0.5
    assert _READING.others == pytest.approx(0.3)


def test_without_a_proxy_there_is_no_cost() -> None:
    reading = Reading(100, None, load_ns=50, busy_ns=90, rss_bytes=(0, 0))
    assert reading.cost(0) is None
    assert reading.others == pytest.approx(0.4)


def test_a_cost_of_no_units_is_refused() -> None:
    with pytest.raises(BenchmarkError, match="nothing was answered"):
        _READING.cost(0)
