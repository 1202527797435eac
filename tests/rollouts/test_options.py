"""The YAML of guards and gates: what is read, and what is refused in which words."""

from typing import Any

import pytest
from pydantic import ValidationError

from router.rollouts.bounds import Bound, parse_kpi_bound, parse_rate_bound, parse_time_bound
from router.rollouts.options import Gate, Guard, measure_of


def refusal(model: type[Guard] | type[Gate], document: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(document)
    return str(caught.value.errors()[0].get("ctx", {}).get("error", caught.value))


@pytest.mark.parametrize(
    ("value", "bound"),
    [
        ("1%", Bound(0.01, "%")),
        ("0.05%", Bound(0.0005, "%")),
        (0.01, Bound(0.01, "%")),
        ("1.25x", Bound(1.25, "x")),
        ("1x", Bound(1.0, "x")),
        ("0.5x", Bound(0.5, "x")),
    ],
)
def test_a_bound_of_a_rate_is_a_share_or_a_ratio(value: object, bound: Bound) -> None:
    assert parse_rate_bound(value) == bound


@pytest.mark.parametrize("value", ["1.25", "500ms", 1.25, -0.1, True, None, "x", "1 x", "-1x", []])
def test_what_is_neither_share_nor_ratio_bounds_no_rate(value: object) -> None:
    with pytest.raises(ValueError, match=r"is no bound of a rate, write a share like 1%, or"):
        parse_rate_bound(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0%", "can never be shown to hold"),
        (0, "can never be shown to hold"),
        ("100%", "bounds nothing, write a share below 100%"),
        ("0.05x", r"is not a ratio between 0\.1x and 100x"),
        ("101x", r"is not a ratio between 0\.1x and 100x"),
    ],
)
def test_a_bound_that_says_nothing_is_refused(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_rate_bound(value)


def test_a_bound_of_a_time_is_a_duration_or_a_ratio() -> None:
    assert parse_time_bound("500ms") == Bound(0.5, "s")
    assert parse_time_bound("1.2x") == Bound(1.2, "x")


@pytest.mark.parametrize("value", ["1%", 0.5, 0, "0s", "500", "fast", None, True])
def test_what_is_neither_duration_nor_ratio_bounds_no_time(value: object) -> None:
    with pytest.raises(ValueError, match=r"is no bound of a time, write a duration like 500ms"):
        parse_time_bound(value)


def test_a_bound_of_a_kpi_may_also_be_a_plain_number() -> None:
    assert parse_kpi_bound(7) == Bound(7.0, "")
    assert parse_kpi_bound("1%") == Bound(0.01, "%")
    assert parse_kpi_bound("20ms") == Bound(0.02, "s")
    for value in (0, -1, True, None, float("inf"), []):
        with pytest.raises(ValueError, match="is no bound of a KPI"):
            parse_kpi_bound(value)


def test_a_bound_is_written_as_it_is_read() -> None:
    guard = Guard.model_validate(
        {"max_error_rate": "0.5%", "p99": "500ms", "p95": "1.2x", "kpis": {"aborts": "2%"}}
    )
    written = guard.model_dump(mode="json")
    assert written["max_error_rate"] == "0.5%"
    assert written["p99"] == "500ms"
    assert written["p95"] == "1.2x"
    assert written["kpis"] == {"aborts": "2%"}


def test_a_guard_without_keys_watches_errors_latency_and_bursts() -> None:
    guard = Guard()
    assert list(guard.rates()) == [("max_error_rate", "errors", Bound(1.1, "x"))]
    assert list(guard.quantiles()) == [("p95", "latency", 0.95, Bound(1.1, "x"))]
    assert guard.burst is not None
    assert (guard.confidence, guard.promote_confidence) == (0.99, 0.95)


def test_every_key_of_a_bound_becomes_a_condition() -> None:
    quantiles = ("p50", "p90", "p95", "p99")
    keys = [*quantiles, *(f"first_byte_{one}" for one in quantiles)]
    guard = Guard.model_validate(
        dict.fromkeys(keys, "1.2x")
        | dict.fromkeys(("max_error_rate", "max_abort_rate", "max_truncated_rate"), "1%")
        | {"kpis": {"aborts": "1.2x", "latency.p90": "1s"}}
    )
    assert [name for _, name, _ in guard.rates()] == ["errors", "aborts", "truncated", "aborts"]
    found = [(name, q) for _, name, q, _ in guard.quantiles()]
    shares = (0.5, 0.9, 0.95, 0.99)
    assert found == [
        *(("latency", q) for q in shares),
        *(("first_byte", q) for q in shares),
        ("latency", 0.9),
    ]


def test_the_measurement_of_a_kpi_is_named_before_its_quantile() -> None:
    assert measure_of("disagreements") == ("disagreements", None)
    assert measure_of("latency.p95") == ("latency", 0.95)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"max_error_rate": "2x"}, "max_error_rate allows 2x, but promote_ratio is 2"),
        ({"kpis": {"aborts": "3x"}}, "aborts allows 3x, but promote_ratio is 2"),
        ({"p50": "300ms", "p95": "100ms"}, "p95 allows 100ms, which is less than p50, 300ms"),
        ({"kpis": {"latency": "1.2x"}}, "kpis.latency has no quantile, write latency.p95"),
        ({"kpis": {"errors.p95": "1.2x"}}, "errors is a rate and has no quantiles, write errors"),
        ({"kpis": {"errors": "10ms"}}, "10ms is no bound of a rate, write 1% or 1.25x"),
        ({"kpis": {"latency.p95": "1%"}}, "1% is no bound of a quantile, write 500ms, 7 or 1.2x"),
        ({"kpis": {"Oh no": "1%"}}, "'Oh no' is not a KPI"),
        ({"max_error_rate": None, "p95": None, "burst": None}, "guards nothing; remove it"),
        (
            {"gates": [{"name": "a", "webhook": {"url": "http://a"}}] * 2},
            "two gates are named 'a'",
        ),
    ],
)
def test_a_contradiction_is_refused_in_one_sentence(document: dict[str, Any], message: str) -> None:
    assert message in refusal(Guard, document)


@pytest.mark.parametrize(
    "document",
    [
        {"confidence": "100%"},
        {"confidence": "50%"},
        {"promote_ratio": 1},
        {"promote_ratio": "2x"},
        {"negligible": "60%"},
        {"min_requests": -1},
        {"burst": {"errors": 1}},
        {"burst": {"within": "2m"}},
        {"on_inconclusive": "shrug"},
        {"max_eror_rate": "1%"},
    ],
)
def test_what_is_out_of_bounds_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Guard.model_validate(document)


def test_a_gate_is_a_query_or_a_webhook() -> None:
    query = {"url": "http://prometheus:9090", "query": "up", "above": 0}
    gate = Gate.model_validate({"name": "slo", "prometheus": query})
    assert (gate.interval, gate.timeout, gate.on_error) == (30.0, 5.0, "hold")
    assert "exactly one of prometheus and webhook" in refusal(Gate, {"name": "slo"})
    both = query | {"below": 1}
    assert "exactly one of below and above" in refusal(Gate, {"name": "slo", "prometheus": both})
    away = query | {"url": "ftp://prometheus"}
    assert "is not a URL" in refusal(Gate, {"name": "slo", "prometheus": away})
