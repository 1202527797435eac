"""The guard: what it concludes, in which words, and how often it is wrong (a small, seeded version
of `python -m benchmarks canary`)."""

import json
import re
from typing import Any

import pytest

from benchmarks.canary.figures import failed, median_requests, median_seconds, promoted
from benchmarks.canary.runs import judged, ramped
from benchmarks.canary.traffic import NEW, OLD, Scenario, Traffic
from router.rollouts.guard import Judge
from router.rollouts.measured import LATENCY, Block, Measured, bucket_of
from router.rollouts.options import Guard
from router.rollouts.state import Outcome, Verdict

SEEDS = 40


def guard(**keys: Any) -> Guard:
    """A guard of these conditions alone."""
    nothing = {"max_error_rate": None, "p95": None, "burst": None}
    return Guard.model_validate(nothing | keys)


def measured(n: int, **rates: int) -> Measured:
    found = Measured(requests=n)
    for name, k in rates.items():
        found.count(name, n, k)
    return found


def timed(n: int, seconds: float, *, slow: int = 0, slow_s: float = 1.0) -> Measured:
    """`n` requests of which `slow` took `slow_s` and the others a little more or less `seconds`."""
    found = Measured(requests=n)
    sketch = found.distributions.setdefault(LATENCY, {})
    for i in range(n):
        took = slow_s if i < slow else seconds * (1 + 0.3 * i / n)
        sketch[bucket_of(took)] = sketch.get(bucket_of(took), 0) + 1
    return found


def judge_of(options: Guard, *blocks: Block, times: int = 1) -> Judge:
    judge = Judge(options, OLD, NEW)
    for _ in range(times):
        for block in blocks:
            judge.observe(block, {})
    return judge


def until_known(options: Guard, *blocks: Block, most: int = 2000) -> Verdict:
    """The first verdict that is not inconclusive."""
    judge = Judge(options, OLD, NEW)
    for i in range(most):
        judge.observe(blocks[i % len(blocks)], {})
        if (verdict := judge.verdict()).outcome is not Outcome.INCONCLUSIVE:
            return verdict
    return judge.verdict()


HEALTHY: Block = {OLD: measured(180, errors=2), NEW: measured(20, errors=0)}
EVEN: Block = {OLD: measured(100, errors=1), NEW: measured(100, errors=1)}
FAILING: Block = {OLD: measured(180, errors=2), NEW: measured(20, errors=1)}


# what it says


def test_more_errors_than_allowed_fail_with_the_figures_of_both() -> None:
    verdict = until_known(guard(max_error_rate="1.25x"), FAILING)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.reason.startswith("errors 5.0 % of ")
    assert "against 1.1 % of" in verdict.reason
    assert verdict.reason.endswith("(x4.5, allowed x1.25): rolled back with confidence 99 %")
    assert verdict.figures["errors.new"] == pytest.approx(0.05)


def test_an_equal_variant_passes_when_that_is_shown() -> None:
    verdict = until_known(guard(max_error_rate="1.25x"), EVEN)
    assert verdict.outcome is Outcome.PASS
    assert verdict.reason.endswith("(x1.0, allowed x1.25): below x2 with confidence 95 %")


def test_a_perfect_variant_passes_without_anything_to_compare() -> None:
    perfect: Block = {OLD: measured(180, errors=0), NEW: measured(20, errors=0)}
    verdict = until_known(guard(max_error_rate="1.25x"), perfect)
    assert verdict.outcome is Outcome.PASS
    assert verdict.reason.endswith("below 0.5 % with confidence 95 %")
    never = guard(max_error_rate="1.25x", negligible="0%")
    assert until_known(never, perfect).outcome is Outcome.INCONCLUSIVE


def test_an_absolute_bound_does_not_look_at_the_old_variant() -> None:
    options = guard(max_error_rate="2%")
    both: Block = {OLD: measured(180, errors=9), NEW: measured(20, errors=1)}
    verdict = until_known(options, both)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.reason.endswith("(allowed 2 %): rolled back with confidence 99 %")
    good: Block = {OLD: measured(180, errors=9), NEW: measured(200, errors=1)}
    passed = until_known(options, good)
    assert passed.outcome is Outcome.PASS
    assert passed.reason.endswith("(allowed 2 %): below 2 % with confidence 95 %")


def test_errors_of_both_variants_together_fail_no_relative_bound() -> None:
    outage: Block = {OLD: measured(180, errors=90), NEW: measured(20, errors=10)}
    judge = judge_of(guard(max_error_rate="1.25x", burst={}), *[HEALTHY] * 30, *[outage] * 60)
    assert judge.verdict().outcome is not Outcome.FAIL


def test_a_quantile_is_judged_by_how_often_it_is_exceeded() -> None:
    options = guard(p99="500ms")
    slow: Block = {OLD: timed(180, 0.1), NEW: timed(100, 0.1, slow=5)}
    verdict = until_known(options, slow)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.reason.startswith("latency p99 above 500ms: 5.0 % of")
    fine: Block = {OLD: timed(180, 0.1), NEW: timed(100, 0.1)}
    assert until_known(options, fine).outcome is Outcome.PASS


def test_a_quantile_s_ratio_is_judged_beside_the_old_variant() -> None:
    options = guard(p95="1.2x")
    slower: Block = {OLD: timed(180, 0.1), NEW: timed(20, 0.16)}
    verdict = until_known(options, slower)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.reason.startswith("latency p95 above 15")
    assert "allowed x1.1" in verdict.reason
    allowed: Block = {OLD: timed(180, 0.1), NEW: timed(20, 0.11)}
    assert until_known(options, allowed).outcome is Outcome.PASS


def test_both_variants_slower_together_fail_no_relative_bound() -> None:
    before: Block = {OLD: timed(180, 0.1), NEW: timed(20, 0.1)}
    loaded: Block = {OLD: timed(180, 0.3), NEW: timed(20, 0.3)}
    judge = judge_of(guard(p95="1.1x"), *[before] * 20, *[loaded] * 200)
    assert judge.verdict().outcome is not Outcome.FAIL


def test_a_quantile_waits_for_enough_requests_of_the_old_variant() -> None:
    judge = judge_of(guard(p99="1.2x"), {OLD: timed(100, 0.1), NEW: timed(100, 0.9)}, times=10)
    assert judge.verdict().outcome is Outcome.INCONCLUSIVE
    assert "1,000 of 2,000 requests of the old variant to compare with" in judge.verdict().reason


def test_a_kpi_is_a_condition_by_its_name() -> None:
    options = guard(kpis={"truncated": "1.2x"})
    cut: Block = {OLD: measured(180, truncated=2), NEW: measured(20, truncated=2)}
    assert until_known(options, cut).reason.startswith("truncated 10.0 % of")


def test_a_burst_fails_at_once_but_not_when_the_old_variant_fails_too() -> None:
    down: Block = {OLD: measured(180, errors=1), NEW: measured(8, errors=8)}
    judge = judge_of(guard(burst={}), down)
    assert judge.verdict().outcome is Outcome.FAIL
    assert judge.verdict().reason == (
        "burst 100.0 % of 8 within 10s failed, against 0.56 % of 180: rolled back at once"
    )
    outage: Block = {OLD: measured(180, errors=170), NEW: measured(8, errors=8)}
    assert judge_of(guard(burst={}), outage).verdict().outcome is not Outcome.FAIL
    few: Block = {OLD: measured(180, errors=1), NEW: measured(4, errors=4)}
    assert judge_of(guard(burst={}), few).verdict().outcome is not Outcome.FAIL


def test_failures_that_left_the_window_are_no_burst() -> None:
    down: Block = {OLD: measured(180), NEW: measured(4, errors=4)}
    calm: Block = {OLD: measured(180, errors=0), NEW: measured(1, errors=0)}
    judge = judge_of(guard(burst={}), down, *[calm] * 10, down)
    assert judge.verdict().outcome is not Outcome.FAIL


def test_a_pass_needs_requests_in_every_step() -> None:
    judge = judge_of(guard(max_error_rate="1.25x", min_requests=300), EVEN, times=200)
    assert judge.verdict().outcome is Outcome.PASS
    judge.begin_step()
    assert judge.verdict() == Verdict(
        Outcome.INCONCLUSIVE, "0 of 300 requests", judge.verdict().figures
    )
    for _ in range(3):
        judge.observe(EVEN, {})
    assert judge.verdict().outcome is Outcome.PASS


def test_no_data_is_neither_pass_nor_failure() -> None:
    judge = judge_of(Guard(), {}, {OLD: measured(500, errors=5)}, times=50)
    assert judge.verdict().outcome is Outcome.INCONCLUSIVE
    assert judge.verdict().reason.startswith("0 of 100 requests; errors 0.0 % of 0 against")


def test_a_gate_speaks_for_itself() -> None:
    options = guard(max_error_rate="1.25x", gates=[{"name": "qa", "webhook": {"url": "http://q"}}])
    judge = judge_of(options, EVEN, times=200)
    assert judge.verdict().reason == "gate qa has not been asked yet"
    judge.observe(
        EVEN, {"qa": Verdict(Outcome.PASS, "answered pass"), "other": Verdict(Outcome.FAIL, "")}
    )
    assert judge.verdict().outcome is Outcome.PASS
    judge.observe(EVEN, {"qa": Verdict(Outcome.FAIL, "answered fail: drift")})
    assert judge.verdict() == Verdict(
        Outcome.FAIL, "gate qa answered fail: drift", judge.verdict().figures
    )


# little traffic, and none of the old variant


def test_seconds_are_taken_together_until_both_variants_have_requests() -> None:
    """One request every second, of the old variant or of the new: alone each says nothing."""
    seconds: list[Block] = [{OLD: measured(1, errors=0)}] * 9 + [{NEW: measured(1, errors=1)}]
    verdict = until_known(guard(max_error_rate="1.25x"), *seconds)
    assert verdict.outcome is Outcome.FAIL
    assert "100.0 % of" in verdict.reason


def test_without_traffic_of_the_old_variant_its_past_is_the_measure() -> None:
    before: Block = {OLD: measured(200, errors=2)}
    options = guard(max_error_rate="1.25x", negligible="0.1%")
    bad: Block = {NEW: measured(200, errors=8)}
    judge = judge_of(options, *[before] * 100, *[bad] * 40)
    assert judge.verdict().outcome is Outcome.FAIL
    assert re.search(r"against 1\.0 % of 1\d,\d\d\d before", judge.verdict().reason)
    same: Block = {NEW: measured(200, errors=2)}
    assert judge_of(options, *[before] * 100, *[same] * 60).verdict().outcome is Outcome.PASS


def test_without_any_past_there_is_nothing_to_compare_with() -> None:
    judge = judge_of(guard(max_error_rate="1.25x"), {NEW: measured(200, errors=20)}, times=100)
    assert judge.verdict().outcome is Outcome.INCONCLUSIVE


# what is kept


def test_evidence_goes_through_json_exactly_and_goes_on_the_same() -> None:
    options = Guard.model_validate({"p99": "500ms", "max_abort_rate": "5%"})
    traffic = Traffic(Scenario(new_errors=0.02), seed=4)
    one, other = Judge(options, OLD, NEW), Judge(options, OLD, NEW)
    for _ in range(40):
        one.observe(traffic.block(0.1), {})
    for _ in range(15):
        one.observe({NEW: measured(50, errors=1)}, {})
    kept = json.dumps(one.dump())
    other.restore(json.loads(kept))
    for _ in range(30):
        block = traffic.block(0.1)
        one.observe(block, {})
        other.observe(block, {})
    assert one.dump() == other.dump()
    assert one.verdict() == other.verdict()


def test_evidence_is_bounded() -> None:
    options = Guard.model_validate({"p99": "1.2x"})
    judge, traffic = Judge(options, OLD, NEW), Traffic(Scenario(sigma=2.0), seed=1)
    for _ in range(300):
        judge.observe(traffic.block(0.5), {})
    per_check = len(json.dumps(judge.dump())) / 4
    assert per_check < 16_384


def test_no_evidence_is_a_beginning_and_other_things_are_refused() -> None:
    judge = Judge(Guard(), OLD, NEW)
    fresh = judge.dump()
    judge.restore({})
    assert judge.dump() == fresh
    with pytest.raises(ValueError, match="expected evidence of version 1"):
        judge.restore({"version": 9})
    with pytest.raises(ValueError, match="not a dump of evidence"):
        judge.restore({"version": 1, "in_step": 0, "checks": {"errors": {"above": 3}}})


def test_the_summary_has_a_row_for_every_check_and_gate() -> None:
    options = Guard.model_validate({"gates": [{"name": "qa", "webhook": {"url": "http://q"}}]})
    judge = judge_of(options, FAILING, times=60)
    rows = {row["check"]: row for row in judge.summary()}
    assert list(rows) == ["errors", "latency p95", "burst", "gate qa"]
    errors = rows["errors"]
    assert errors["outcome"] == "fail"
    assert errors["p_fail"] <= 0.01
    assert errors["p_pass"] == 1.0
    assert errors["ratio"] == pytest.approx(4.5)
    assert json.dumps(rows)


# how often it is wrong, and how soon right; tolerances are twice what 40 seeds scatter


def test_an_equal_canary_is_rarely_rolled_back_and_soon_promoted() -> None:
    runs = [judged(Scenario(), seed, looks=400, before=0) for seed in range(SEEDS)]
    assert failed(runs) <= 0.05
    assert promoted(runs) >= 0.95


def test_a_failing_canary_is_always_rolled_back() -> None:
    runs = [judged(Scenario(new_errors=0.05), seed, looks=400, before=0) for seed in range(SEEDS)]
    assert failed(runs) == 1.0
    assert median_requests(runs) <= 350


def test_a_slow_canary_is_always_rolled_back() -> None:
    runs = [judged(Scenario(slower=1.5), seed, looks=200, before=0) for seed in range(SEEDS)]
    assert failed(runs) == 1.0
    assert median_seconds(runs) <= 20


def test_bursts_of_failures_of_one_variant_rarely_roll_back() -> None:
    runs = [judged(Scenario(is_bursty=True), seed, looks=300, before=60) for seed in range(SEEDS)]
    assert failed(runs) <= 0.075


@pytest.mark.parametrize(
    ("scenario", "phase"),
    [
        (Scenario(), "promoted"),
        (Scenario(new_errors=0.05), "rolled_back"),
        (Scenario(slower=1.3), "rolled_back"),
    ],
)
def test_whole_rollouts_end_as_they_should(scenario: Scenario, phase: str) -> None:
    assert [ramped(scenario, seed).phase for seed in range(8)] == [phase] * 8
