import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from router.config.model import Feedback as Settings
from router.control.feedback import Feedback
from router.control.store import Learned, Reward
from router.receipts import issue, names_of
from tests.control.support import BANDIT, LearningAlone, loaded

NOW_S = 1_000_000
JSON = "application/json"


class Desk:
    """A feedback handler with a clock that stands still."""

    def __init__(self, learning: LearningAlone, settings: Settings) -> None:
        self.learning = learning
        self.counts: Counter[tuple[str, str]] = Counter()
        self.feedback = Feedback(learning, lambda: settings, lambda: NOW_S, self.count)
        self.nonces = iter(range(1, 1000))

    def count(self, route: str, result: str) -> None:
        self.counts[route, result] += 1

    def receipt(self, route: str = "learner", variant: str = "v1", age_s: int = 1) -> str:
        key = bytes.fromhex(self.learning.receipt_key)
        nonce = next(self.nonces).to_bytes(8, "big")
        return issue(key, names_of(route, variant), 0.5, NOW_S - age_s, nonce).decode()

    async def post(self, document: Any, content_type: str = JSON) -> tuple[int, Any]:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        answer = await self.feedback.answer(content_type, body)
        assert answer.content_type == (JSON if answer.status == 200 else "application/problem+json")
        return answer.status, json.loads(answer.body)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    learning = LearningAlone(print, lambda: NOW_S)
    learning.adopt(await learning.build(loaded(routes=[BANDIT]).config))
    yield Desk(learning, Settings.model_validate(dict(window="100s", max_items=5, max_body=4096)))
    await learning.close()


@pytest.mark.parametrize("reward", [0, 1, True, False, 0.25])
async def test_a_reward_is_accepted(desk: Desk, reward: float) -> None:
    status, body = await desk.post({"receipt": desk.receipt(), "reward": reward})
    assert (status, body) == (200, {"result": "accepted"})
    assert desk.counts == {("learner", "accepted"): 1}
    summary = desk.learning.summary("learner")
    assert summary is not None
    assert summary["v1"]["rewards"] == 1


async def test_a_repeated_receipt_is_a_duplicate_and_does_not_count(desk: Desk) -> None:
    item = {"receipt": desk.receipt(), "reward": 1}
    await desk.post(item)
    status, body = await desk.post({**item, "reward": 0})
    assert status == 409
    assert (body["type"], body["result"]) == (
        "urn:pointsman:problem:feedback-duplicate",
        "duplicate",
    )
    summary = desk.learning.summary("learner")
    assert summary is not None
    assert summary["v1"]["rewards"] == 1


async def test_a_receipt_counts_to_the_end_of_the_window_and_is_late_after(desk: Desk) -> None:
    assert (await desk.post({"receipt": desk.receipt(age_s=100), "reward": 1}))[0] == 200
    status, body = await desk.post({"receipt": desk.receipt(age_s=101), "reward": 1})
    assert (status, body["result"]) == (410, "late")


async def test_what_was_purged_stays_late_when_the_window_grows(desk: Desk) -> None:
    store = desk.learning.state.store
    assert store is not None
    await store.claim([Reward("nonce", "learner", "v1", 1.0, NOW_S - 51)])
    await store.save([Learned("learner", "bandit", {}, 1)])
    assert await store.purge(NOW_S - 50) == 1
    status, body = await desk.post({"receipt": desk.receipt(age_s=51), "reward": 1})
    assert (status, body["result"]) == (410, "late")


@pytest.mark.parametrize(("route", "variant"), [("gone", "v1"), ("learner", "gone")])
async def test_a_route_or_variant_that_is_gone_is_unknown(
    desk: Desk, route: str, variant: str
) -> None:
    status, body = await desk.post({"receipt": desk.receipt(route, variant), "reward": 1})
    assert (status, body["result"]) == (404, "unknown")


async def test_a_receipt_of_another_key_is_forged(desk: Desk) -> None:
    token = issue(bytes(32), names_of("learner", "v1"), 0.5, NOW_S, bytes(8)).decode()
    status, body = await desk.post({"receipt": token, "reward": 1})
    assert (status, body["result"]) == (403, "forged")
    assert desk.counts == {("", "forged"): 1}


async def test_without_a_key_every_receipt_is_forged(desk: Desk) -> None:
    desk.learning.receipt_key = ""
    token = issue(b"", names_of("learner", "v1"), 0.5, NOW_S, bytes(8)).decode()
    assert (await desk.post({"receipt": token, "reward": 1}))[0] == 403


@pytest.mark.parametrize(
    ("item", "status", "result"),
    [
        (1, 400, "malformed"),
        ({}, 400, "malformed"),
        ({"receipt": "x"}, 400, "malformed"),
        ({"receipt": 1, "reward": 1}, 400, "malformed"),
        ({"receipt": "x", "reward": "1"}, 400, "malformed"),
        ({"receipt": "x", "reward": None}, 400, "malformed"),
        ({"receipt": "x", "reward": 1, "click": 1}, 400, "malformed"),
        ({"receipt": "x", "reward": 1.01}, 422, "out-of-bounds"),
        ({"receipt": "x", "reward": -1}, 422, "out-of-bounds"),
        ({"receipt": "x", "reward": float("nan")}, 422, "out-of-bounds"),
        ({"receipt": "x", "reward": 10**300}, 422, "out-of-bounds"),
        ({"receipt": "\ud800", "reward": 1}, 403, "forged"),
    ],
)
async def test_a_bad_reward_is_refused_with_the_reason(
    desk: Desk, item: Any, status: int, result: str
) -> None:
    got, body = await desk.post(item)
    assert (got, body["result"]) == (status, result)
    assert body["detail"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 4000, b'{"a":1} {"a":1}'])
async def test_a_body_that_is_not_json_is_refused(desk: Desk, body: bytes) -> None:
    status, problem = await desk.post(body)
    assert (status, problem["type"]) == (400, "urn:pointsman:problem:feedback-malformed")


async def test_a_batch_has_a_result_for_each_in_order(desk: Desk) -> None:
    one = {"receipt": desk.receipt(), "reward": 1}
    batch = [one, one, {"receipt": "x", "reward": 1}, {"receipt": "x", "reward": 2}, 7]
    status, body = await desk.post(batch)
    assert status == 200
    assert body["accepted"] == 1
    assert [item["result"] for item in body["results"]] == [
        "accepted",
        "duplicate",
        "forged",
        "out-of-bounds",
        "malformed",
    ]
    assert desk.counts["learner", "duplicate"] == 1


async def test_ndjson_is_a_batch_also_with_one_line(desk: Desk) -> None:
    lines = json.dumps({"receipt": desk.receipt(), "reward": 1}) + "\n\n"
    status, body = await desk.post(lines.encode(), "application/x-ndjson; charset=utf-8")
    assert (status, body) == (200, {"accepted": 1, "results": [{"result": "accepted"}]})


async def test_an_empty_batch_is_nothing(desk: Desk) -> None:
    assert await desk.post([]) == (200, {"accepted": 0, "results": []})


async def test_too_many_rewards_are_refused_as_a_whole(desk: Desk) -> None:
    items = [{"receipt": desk.receipt(), "reward": 1} for _ in range(6)]
    status, body = await desk.post(items)
    assert (status, body["type"]) == (413, "urn:pointsman:problem:feedback-too-large")
    assert desk.counts == {}


async def test_too_long_a_body_is_refused(desk: Desk) -> None:
    status, body = await desk.post(b" " * 4097)
    assert status == 413
    assert "4097 bytes, expected no more than 4096" in body["detail"]


async def test_a_store_that_fails_is_said_and_counts_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipt = desk.receipt()
    store = desk.learning.state.store
    assert store is not None
    await store.close()
    status, body = await desk.post({"receipt": receipt, "reward": 1})
    assert (status, body["type"]) == (503, "urn:pointsman:problem:state-unavailable")
    assert desk.counts == {}
    desk.learning.state.store = None
