"""Deadlines, with time passed by hand."""

import asyncio
from math import inf
from typing import cast

import pytest

from router.data.wheel import BATCH_MAX, TICK_S, Wheel
from tests.data.scripted import Clock, Loop


class Item:
    def __init__(self) -> None:
        self.deadline = inf
        self.slot_s = inf
        self.fired = 0

    def on_deadline(self) -> None:
        self.fired += 1


class Bench:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.loop = Loop()
        self.wheel = Wheel(cast(asyncio.AbstractEventLoop, self.loop))
        self.wheel.start()

    def pass_s(self, seconds: float) -> None:
        self.clock.now += seconds
        self.loop.turn()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(Clock(monkeypatch))


def test_an_item_is_called_once_within_a_tick_of_its_deadline(bench: Bench) -> None:
    item = Item()
    bench.wheel.arm(item, bench.clock.now + 5)
    bench.pass_s(4.99)
    assert item.fired == 0
    bench.pass_s(0.01 + 2 * TICK_S)
    assert item.fired == 1
    bench.pass_s(100)
    assert item.fired == 1
    assert item.slot_s == inf
    assert item.deadline == inf


def test_a_deadline_moved_later_by_a_store_is_kept(bench: Bench) -> None:
    item = Item()
    bench.wheel.arm(item, bench.clock.now + 1)
    for _ in range(10):
        bench.pass_s(0.9)
        item.deadline = bench.clock.now + 1
    assert item.fired == 0
    bench.pass_s(1 + 2 * TICK_S)
    assert item.fired == 1


def test_a_deadline_moved_earlier_by_arming_is_kept(bench: Bench) -> None:
    item = Item()
    bench.wheel.arm(item, bench.clock.now + 60)
    bench.wheel.arm(item, bench.clock.now + 1)
    bench.pass_s(1 + 2 * TICK_S)
    assert item.fired == 1
    bench.pass_s(100)
    assert item.fired == 1


def test_a_deadline_in_the_past_comes_at_the_next_tick(bench: Bench) -> None:
    item = Item()
    bench.wheel.arm(item, bench.clock.now - 5)
    bench.pass_s(2 * TICK_S)
    assert item.fired == 1


def test_a_dropped_item_is_never_called(bench: Bench) -> None:
    item = Item()
    bench.wheel.arm(item, bench.clock.now + 1)
    bench.wheel.drop(item)
    bench.pass_s(10)
    assert item.fired == 0
    assert repr(bench.wheel) == "<Wheel [0 items]>"


def test_an_item_whose_deadline_was_taken_away_leaves_the_wheel(bench: Bench) -> None:
    item = Item()
    bench.wheel.arm(item, bench.clock.now + 1)
    item.deadline = inf
    bench.pass_s(10)
    assert item.fired == 0
    assert item.slot_s == inf


def test_one_item_may_drop_or_rearm_another_of_its_slot(bench: Bench) -> None:
    items = [Item(), Item()]

    def drop_both() -> None:
        for item in items:
            item.fired += 1
            bench.wheel.drop(item)

    for item in items:
        item.on_deadline = drop_both  # type: ignore[method-assign]  # the test's own class
        bench.wheel.arm(item, bench.clock.now + 1)
    bench.pass_s(2)
    assert [item.fired for item in items] == [1, 1]  # the second was dropped by the first


def test_a_long_sleep_of_the_machine_makes_everything_due(bench: Bench) -> None:
    items = [Item() for _ in range(3)]
    for place, item in enumerate(items):
        bench.wheel.arm(item, bench.clock.now + 10.0**place)
    bench.pass_s(1_000_000)
    assert [item.fired for item in items] == [1, 1, 1]


def test_an_item_that_fails_is_reported_and_does_not_take_the_others_along(bench: Bench) -> None:
    items = [Item() for _ in range(5)]

    def fail() -> None:
        raise RuntimeError("on purpose")

    items[2].on_deadline = fail  # type: ignore[method-assign]  # the test's own class
    for item in items:
        bench.wheel.arm(item, bench.clock.now + 1)
    bench.pass_s(2)
    assert [item.fired for item in items] == [1, 1, 0, 1, 1]
    assert [str(context["exception"]) for context in bench.loop.reported] == ["on purpose"]


def test_other_events_get_their_turn_when_many_items_are_due(bench: Bench) -> None:
    items = [Item() for _ in range(3 * BATCH_MAX)]
    for item in items:
        bench.wheel.arm(item, bench.clock.now + 1)
    bench.pass_s(2)
    for turn in (1, 2, 3):
        assert sum(item.fired for item in items) == turn * BATCH_MAX
        bench.loop.turn()
    assert {item.fired for item in items} == {1}
