"""Notifications over real sockets: order, retries, bounds, reload, the end."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import orjson
import pytest
from aiohttp import web

from router.config.notify import Target
from router.control import webhooks as module
from router.control.post import Answer, Poster, Unanswered
from router.control.webhooks import QUEUE_MAX, Webhooks
from router.rollouts.state import Event
from tests.control.receiver import Receiver, receiver
from tests.control.support import eventually


def event(seq: int, kind: str = "promoted") -> Event:
    return Event("animals", kind, "pointsman", 1.0, "because", 1, seq=seq)


def target(url: str, **options: Any) -> Target:
    return Target.model_validate({"webhook": url, **options})


def seqs(there: Receiver) -> list[int]:
    return [orjson.loads(one.body)["seq"] for one in there.posted]


@asynccontextmanager
async def running() -> AsyncIterator[Webhooks]:
    post = Poster("test")
    webhooks = Webhooks(post, lambda: 1.0, Random(1))
    try:
        yield webhooks
    finally:
        await webhooks.close()
        await post.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACK_OFF_S", 0.001)
    monkeypatch.setattr(module, "BACK_OFF_MAX_S", 0.01)
    monkeypatch.setattr(module, "CLOSE_S", 0.2)


async def test_events_arrive_in_their_order_at_everybody_who_wants_them() -> None:
    async with receiver() as there, receiver() as elsewhere, running() as webhooks:
        webhooks.adopt(
            [
                target(there.url, name="all", events=["promoted", "step"]),
                target(elsewhere.url, name="some"),
            ]
        )
        for seq in range(5):
            webhooks.send(event(seq, "step" if seq % 2 else "promoted"))
        await eventually(lambda: seqs(there) == [0, 1, 2, 3, 4] and seqs(elsewhere) == [0, 2, 4])
        await eventually(lambda: webhooks.counts == {("all", "sent"): 5, ("some", "sent"): 3})


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_target_that_is_busy_or_broken_is_tried_again_before_the_next_event(
    status: int,
) -> None:
    async with receiver() as there, running() as webhooks:
        there.answers = [
            web.Response(status=status, headers={"retry-after": "9"}) for _ in range(3)
        ]
        webhooks.adopt([target(there.url)])
        webhooks.send(event(1))
        webhooks.send(event(2))
        await eventually(lambda: seqs(there) == [1, 1, 1, 1, 2])
        await eventually(lambda: webhooks.counts == {("webhook", "sent"): 2})


async def test_retries_end(unused_tcp_port: int, caplog: pytest.LogCaptureFixture) -> None:
    async with running() as webhooks:
        webhooks.adopt([target(f"http://127.0.0.1:{unused_tcp_port}/SECRET", retries=2)])
        webhooks.send(event(1))
        await eventually(lambda: webhooks.counts == {("webhook", "failed"): 1})
    [line] = [one for one in caplog.records if one.message == "notification_failed"]
    fields = vars(line)["event_fields"]
    assert (fields["tries"], fields["reason"]) == (3, "connection refused")
    assert "SECRET" not in str(vars(line))


async def test_an_answer_that_would_be_the_same_again_is_final() -> None:
    async with receiver() as there, running() as webhooks:
        there.answers = [web.Response(status=404)]
        webhooks.adopt([target(there.url)])
        webhooks.send(event(1))
        webhooks.send(event(2))
        await eventually(lambda: seqs(there) == [1, 2])
        await eventually(
            lambda: webhooks.counts == {("webhook", "failed"): 1, ("webhook", "sent"): 1}
        )


async def test_back_off_doubles_with_full_jitter_and_minds_retry_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BACK_OFF_S", 1.0)
    monkeypatch.setattr(module, "BACK_OFF_MAX_S", 60.0)
    paused: list[float] = []
    answers = [Answer(503, b"")] * 3 + [Answer(429, b"", retry_after_s=30.0), Answer(200, b"")]

    async def post(url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Answer:
        return answers.pop(0)

    class Longest(Random):
        def uniform(self, a: float, b: float) -> float:
            return b if a == 0 else a

    async def sleep(seconds: float) -> None:
        paused.append(seconds)

    webhooks = Webhooks(post, lambda: 1.0, Longest())
    webhooks.adopt([target("http://x/")])
    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    webhooks.send(event(1))
    await webhooks.close()
    assert paused == [1.0, 2.0, 4.0, 30.0]
    assert webhooks.counts == {("webhook", "sent"): 1}


async def test_a_slow_target_holds_up_nobody_and_loses_only_its_oldest_news() -> None:
    is_open = asyncio.Event()

    async def slowly(request: web.Request) -> web.StreamResponse:
        await is_open.wait()
        return web.Response()

    async with receiver() as slow, receiver() as other, running() as webhooks:
        slow.answers = [slowly]
        webhooks.adopt([target(slow.url, name="slow"), target(other.url, name="other")])
        webhooks.send(event(0))
        await eventually(lambda: seqs(slow) == [0] and seqs(other) == [0])
        for seq in range(1, QUEUE_MAX + 4):
            webhooks.send(event(seq))
            await asyncio.sleep(0)
        assert webhooks.counts["slow", "dropped"] == 3
        await eventually(
            lambda: len(other.posted) == QUEUE_MAX + 4 - webhooks.counts["other", "dropped"]
        )
        is_open.set()
        await eventually(lambda: seqs(slow) == [0, *range(4, QUEUE_MAX + 4)])


async def test_a_reload_keeps_what_waits_for_a_target_that_stays() -> None:
    async with receiver() as before, receiver() as after, running() as webhooks:
        before.answers = [web.Response(status=503) for _ in range(1000)]
        webhooks.adopt([target(before.url, retries=10), target(before.url, name="gone")])
        webhooks.send(event(1))
        await eventually(lambda: len(before.posted) >= 2)
        webhooks.adopt([target(after.url)])
        await eventually(lambda: seqs(after) == [1])
        await eventually(
            lambda: webhooks.counts == {("webhook", "sent"): 1, ("gone", "dropped"): 1}
        )


async def test_the_end_waits_for_what_can_still_leave() -> None:
    async with receiver() as there:
        async with running() as webhooks:
            webhooks.adopt([target(there.url)])
            for seq in range(20):
                webhooks.send(event(seq))
        assert seqs(there) == list(range(20))


async def test_the_end_does_not_wait_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    async def never(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with receiver() as there:
        there.answers = [never]
        async with running() as webhooks:
            webhooks.adopt([target(there.url)])
            webhooks.send(event(1))
            webhooks.send(event(2))
        assert webhooks.counts == {("webhook", "dropped"): 2}
    assert [one.message for one in caplog.records if one.levelno == logging.WARNING] == [
        "notification_dropped",
        "notification_dropped",
    ]


async def test_a_message_that_cannot_be_made_does_not_silence_the_target() -> None:
    async with receiver() as there, running() as webhooks:
        webhooks.adopt([target(there.url)])
        webhooks.send(Event("animals", "promoted", "ann", 1.0, "x", 1, {"odd": object()}))
        webhooks.send(event(2))
        await eventually(lambda: seqs(there) == [2])
        assert webhooks.counts["webhook", "failed"] == 1


async def test_a_target_that_cannot_be_reached_is_reached_when_it_can() -> None:
    outcomes: list[Exception | Answer] = [Unanswered("no route"), Answer(202, b"")]

    async def post(url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Answer:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    webhooks = Webhooks(post, lambda: 1.0, Random(1))
    webhooks.adopt([target("http://x/")])
    webhooks.send(event(1))
    await eventually(lambda: webhooks.counts == {("webhook", "sent"): 1})
    await webhooks.close()
