"""KPIs as a guard sees them, from what workers count and clients post to a verdict."""

import json
from typing import Any

import pytest

from router.config.model import Feedback as Settings
from router.control.counts import Arm, Item, Value
from router.control.feedback import Feedback
from router.control.guarded import fed_back, seen_by_workers
from router.control.kpis import Subject, subjects_of
from router.control.measuring import Measuring
from router.messages import Stats
from router.receipts import Signer, names_of
from router.rollouts.guard import Judge
from router.rollouts.measured import Measured, bucket_of
from router.rollouts.options import Guard
from router.rollouts.state import Outcome
from tests.control.support import LearningAlone, loaded

NOW_S = 1_000_000
KPIS: dict[str, Any] = {
    "click": {},
    "complaint": {"goal": "min"},
    "tokens": {"type": "numeric", "goal": "min", "bounds": [1, 1000]},
    "cost": {"type": "lognormal", "goal": "min", "bounds": [0.01, 100]},
    "failed": {"source": "status"},
    "cached": {"source": {"header": "x-cached"}, "type": "binary"},
    "slow": {"source": "latency"},
    "latency": {"source": "latency"},
}
ROUTE: dict[str, Any] = {
    "name": "r",
    "match": {"path": "/r/"},
    "policy": {"type": "ab", "variants": [{"backend": "v1"}, {"backend": "v2"}]},
    "kpis": KPIS,
}


@pytest.fixture
def subject() -> Subject:
    return subjects_of(loaded(routes=[ROUTE]).config)["r"]


def test_what_workers_see_becomes_rates_of_what_is_bad_and_sketches(subject: Subject) -> None:
    sums = [["failed", 10, 3.0], ["cached", 10, 3.0], ["slow", 10, 2.5], ["gone", 1, 1.0]]
    kpis = [["r", "v2", "", 1, name, n, total, total] for name, n, total in sums]
    times = Measured(10, {"errors": [10, 3]}, {"latency": {5: 9, 7: 1}, "first_byte": {4: 10}})
    stats = Stats(0, 0, kpis=kpis, measured=[["r", "v2", times.dump()], ["x", "v2", times.dump()]])
    whole = Measured()
    for route, variant, seen in seen_by_workers(stats, {"r": subject}):
        assert (route, variant) == ("r", "v2")
        whole.merge(seen)

    # a cache that answers is good, so what counts is that it did not
    assert whole.rates == {"failed": [10, 3], "cached": [10, 7]}
    assert whole.distributions == {"slow": {5: 9, 7: 1}}  # `latency` counts under its own name
    assert whole.requests == 0


def test_what_is_posted_counts_as_what_is_bad_of_it(subject: Subject) -> None:
    posted = {"click": 1.0, "complaint": 1.0, "tokens": 250.0, "cost": 7.5}
    values = tuple(Value(name, subject.kpis[name].counted(one)) for name, one in posted.items())
    route, variant, seen = fed_back(Item(Arm("r", "v2"), "n", NOW_S, values), subject)

    assert (route, variant) == ("r", "v2")
    assert seen.rates == {"click": [1, 0], "complaint": [1, 1]}
    assert seen.distributions == {
        "tokens": {bucket_of(250.0): 1},
        "cost": {bucket_of(7.5): 1},
    }


@pytest.mark.parametrize(("kpi", "bad"), [("click", 0), ("complaint", 1)])
async def test_accepted_feedback_fails_a_guard_and_a_duplicate_counts_nowhere(
    kpi: str, bad: int
) -> None:
    learning = LearningAlone(print, lambda: NOW_S)
    config = loaded(routes=[ROUTE]).config
    learning.adopt(await learning.build(config))
    measuring = Measuring()
    measuring.keep({"r": ("v1", "v2")})
    feedback = Feedback(learning, lambda: Settings(), lambda: NOW_S, lambda *_: None, measuring.see)
    signer = Signer(bytes.fromhex(learning.receipt_key))
    nothing = {"max_error_rate": None, "p95": None, "burst": None}
    judge = Judge(Guard.model_validate(nothing | {"kpis": {kpi: "20%"}}), "v1", "v2")
    for second in range(60):
        items = []
        for variant, value in (("v1", 1 - bad), ("v2", bad)):
            nonce = b"%6d%b" % (second, variant.encode())
            receipt = signer.issue(names_of("r", variant), 0.5, NOW_S, nonce).decode()
            items.append({"receipt": receipt, "kpi": kpi, "value": value})
        for _ in range(2):
            answer = await feedback.answer("application/json", json.dumps(items).encode())
            assert answer.status == 200
        block = measuring.take("r")
        assert (block["v1"].rates, block["v2"].rates) == ({kpi: [1, 0]}, {kpi: [1, 1]})
        judge.observe(block, {})
    await learning.close()

    assert judge.verdict().outcome is Outcome.FAIL
