"""Feedback: a posted body becomes rewards, each with its own result.

Owns the form of the body and the order of the checks: form, bounds, signature, time, route, and
last whether it was counted before, which only the store knows. Knows no sockets: the same
`answer` serves the listener (through a worker) and the admin API.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from router.config.model import Feedback as Settings
from router.control.learning import Learning
from router.control.problems import Answer, problem, success
from router.control.store import Reward
from router.errors import StateError
from router.receipts import Receipt, verify

_NDJSON: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")


class Result(StrEnum):
    """What became of one reward."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    LATE = "late"
    UNKNOWN = "unknown"
    FORGED = "forged"
    MALFORMED = "malformed"
    OUT_OF_BOUNDS = "out-of-bounds"


_STATUS: Final = {
    Result.ACCEPTED: 200,
    Result.DUPLICATE: 409,
    Result.LATE: 410,
    Result.UNKNOWN: 404,
    Result.FORGED: 403,
    Result.MALFORMED: 400,
    Result.OUT_OF_BOUNDS: 422,
}


class _Unreadable(Exception):
    """The body as a whole cannot be read."""


@dataclass(slots=True)
class _Item:
    """One reward on its way; `result` is ACCEPTED until a check says otherwise."""

    result: Result = Result.ACCEPTED
    detail: str = ""
    receipt: Receipt | None = None
    reward: float = 0.0

    def refuse(self, result: Result, detail: str) -> "_Item":
        self.result, self.detail = result, detail
        return self


class Feedback:
    """The one handler of feedback."""

    def __init__(
        self,
        learning: Learning,
        settings: Callable[[], Settings],
        now: Callable[[], float],
        count: Callable[[str, str], None],
    ) -> None:
        """`now` is seconds since 1970; `count(route, result)` counts every reward posted."""
        self._learning = learning
        self._settings = settings
        self._now = now
        self._count = count

    async def answer(self, content_type: str, body: bytes) -> Answer:
        """Count the rewards in `body`: one JSON object, an array of them, or NDJSON."""
        settings = self._settings()
        if len(body) > settings.max_body:
            return problem(
                413,
                "feedback-too-large",
                f"the body has {len(body)} bytes, expected no more than {settings.max_body}",
            )
        try:
            entries, is_single = _parse(content_type, body)
        except _Unreadable as error:
            return problem(400, "feedback-malformed", str(error), result=Result.MALFORMED)
        if len(entries) > settings.max_items:
            return problem(
                413,
                "feedback-too-large",
                f"the body has {len(entries)} rewards, expected no more than {settings.max_items}",
            )
        items = [self._check(entry, settings.window) for entry in entries]
        try:
            await self._record(items)
        except StateError as error:
            return problem(503, "state-unavailable", f"the reward could not be written: {error}")
        for item in items:
            self._count(item.receipt.route if item.receipt else "", item.result)
        return _one(items[0]) if is_single else _many(items)

    def _check(self, entry: Any, window_s: float) -> _Item:
        """All checks that need no store."""
        item = _read(entry)
        if item.result is not Result.ACCEPTED:
            return item
        key = self._learning.receipt_key
        receipt = verify(bytes.fromhex(key), entry["receipt"]) if key else None
        if receipt is None:
            return item.refuse(Result.FORGED, "the receipt was not issued here, or was altered")
        item.receipt = receipt
        oldest_s = max(self._now() - window_s, self._learning.horizon_s)
        if receipt.issued_s < oldest_s:
            return item.refuse(Result.LATE, f"the receipt is older than {window_s:g} s")
        if not self._learning.knows(receipt.route, receipt.variant):
            return item.refuse(Result.UNKNOWN, "its route no longer learns about this variant")
        return item

    async def _record(self, items: list[_Item]) -> None:
        rewards: list[Reward] = []
        accepted: list[_Item] = []
        for item in items:
            if item.result is Result.ACCEPTED and (r := item.receipt) is not None:
                rewards.append(Reward(r.nonce, r.route, r.variant, item.reward, r.issued_s))
                accepted.append(item)
        if not rewards:
            return
        counted = await self._learning.record(rewards)
        for item, is_counted in zip(accepted, counted, strict=True):
            if not is_counted:
                item.refuse(Result.DUPLICATE, "a reward for this receipt was counted before")


def _parse(content_type: str, body: bytes) -> tuple[list[Any], bool]:
    """The rewards in a body, and whether it is a single one by form."""
    try:
        text = body.decode("utf-8")
        if content_type.partition(";")[0].strip().lower() in _NDJSON:
            return [json.loads(line) for line in text.split("\n") if line.strip()], False
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Unreadable(f"the body is not JSON: {error}") from error
    return (document, False) if isinstance(document, list) else ([document], True)


def _read(entry: Any) -> _Item:
    """The form of one reward: `{"receipt": text, "reward": 0..1 or a boolean}`."""
    item = _Item()
    if not isinstance(entry, dict) or not isinstance(entry.get("receipt"), str):
        return item.refuse(Result.MALFORMED, 'expected {"receipt": "...", "reward": 0 to 1}')
    unknown = entry.keys() - {"receipt", "reward"}
    if unknown:
        return item.refuse(Result.MALFORMED, f"unknown key {min(unknown)!r}")
    reward = entry.get("reward")
    if not isinstance(reward, bool | int | float):
        return item.refuse(Result.MALFORMED, "reward is not a number or a boolean")
    if not (0 <= reward <= 1 and math.isfinite(reward)):
        return item.refuse(Result.OUT_OF_BOUNDS, f"reward is {reward}, expected 0 to 1")
    item.reward = float(reward)
    return item


def _one(item: _Item) -> Answer:
    if item.result is Result.ACCEPTED:
        return success({"result": item.result})
    return problem(_STATUS[item.result], f"feedback-{item.result}", item.detail, result=item.result)


def _many(items: list[_Item]) -> Answer:
    results = [
        {"result": item.result}
        if not item.detail
        else {"result": item.result, "detail": item.detail}
        for item in items
    ]
    accepted = sum(item.result is Result.ACCEPTED for item in items)
    return success({"accepted": accepted, "results": results})
