import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.wrk import ClosedLoop, parse

_OUTPUT = """\
Running 2s test @ http://127.0.0.1:1/
  1 threads and 32 connections
Requests/sec:  10.00

RESULT {"requests":20,"duration_us":2000000,"bytes":9,"p50_us":5,"p99_us":6,"p999_us":7,\
"errors":{"connect":0,"read":0,"write":0,"status":0,"timeout":0}}
"""


def test_the_result_line_is_read() -> None:
    closed = parse(_OUTPUT)
    assert closed == ClosedLoop(requests=20, duration_s=2.0, p50_us=5, p99_us=6, p999_us=7)
    assert closed.requests_per_s == 10.0


@pytest.mark.parametrize("kind", ["connect", "read", "write", "status", "timeout"])
def test_a_failed_request_of_any_kind_ends_the_measurement(kind: str) -> None:
    with pytest.raises(BenchmarkError, match=f"'{kind}': 3"):
        parse(_OUTPUT.replace(f'"{kind}":0', f'"{kind}":3'))


def test_no_answer_at_all_is_an_error_and_not_a_zero() -> None:
    with pytest.raises(BenchmarkError, match="0 requests answered"):
        parse(_OUTPUT.replace('"requests":20', '"requests":0'))


def test_output_without_a_result_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="printed 0 results"):
        parse("Running 2s test\n")
