import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from router.config.health import HealthCheck
from router.config.model import Config
from router.control import health as module
from router.control.health import NOT_CHECKED, Checked, Health
from router.control.probe import Target
from tests.control.support import Pushed, eventually, loaded

CHECK = {"path": "/ready", "interval": "100ms", "healthy_after": 2, "unhealthy_after": 3}
URL = "http://127.0.0.1:1"
OTHER = "http://127.0.0.1:3"
PLACE = ("v1", URL)
ADDED = ("v1", OTHER)


def config_of(*urls: str, **check: Any) -> Config:
    backends = {
        "v1": {"endpoints": [URL, *urls], "health": CHECK | check},
        "v2": {"endpoints": ["http://127.0.0.1:2"]},
    }
    return loaded(backends=backends).config


class Patient:
    """A probe whose answers the test sets; `gate` holds them back."""

    def __init__(self) -> None:
        self.failure: str | None = None
        self.failures: dict[str, str] = {}
        """By URL, of some."""
        self.targets: list[Target] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way = 0
        self.most_under_way = 0

    async def __call__(self, target: Target) -> str | None:
        self.targets.append(target)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.gate.wait()
        finally:
            self.under_way -= 1
        return self.failures.get(target.url, self.failure)

    def checks_of(self, url: str) -> int:
        return sum(target.url == url for target in self.targets)


def test_an_endpoint_changes_sides_after_enough_results_in_a_row() -> None:
    checked = Checked(HealthCheck(path="/", healthy_after=2, unhealthy_after=3), True, 0.0)
    results = ["no", "no", None, "no", "no", "no", "no", None, "no", None, None, None]
    changes = [checked.observe(failure, float(turn)) for turn, failure in enumerate(results)]
    assert [turn for turn, changed in enumerate(changes) if changed] == [5, 10]
    assert (checked.is_up, checked.since_s) == (True, 10.0)


def test_one_that_was_never_healthy_needs_one_success_and_then_as_many_as_others() -> None:
    check = HealthCheck(path="/", healthy_after=2, unhealthy_after=1)
    checked = Checked(check, False, 0.0, NOT_CHECKED, is_new=True)
    results = ["no", None, "no", None, None]
    changes = [checked.observe(failure, float(turn)) for turn, failure in enumerate(results)]
    assert [turn for turn, changed in enumerate(changes) if changed] == [1, 2, 4]


@asynccontextmanager
async def watched(config: Config) -> AsyncIterator[tuple[Health, Patient, Pushed]]:
    patient, changed = Patient(), Pushed()
    health = Health(changed, patient, Random(1))
    health.adopt(config)
    yield health, patient, changed
    await health.close()


def is_up(health: Health, place: tuple[str, str] = PLACE) -> bool:
    state = health.state_of(place)
    assert state is not None
    return state.is_up


def task_names() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks()]


async def test_changes_are_told_and_nothing_else() -> None:
    async with watched(config_of()) as (health, patient, changed):
        await eventually(lambda: len(patient.targets) >= 3)
        assert changed == []
        assert is_up(health)
        patient.failure = "status 500"
        await eventually(lambda: bool(changed))
        assert not is_up(health)
        patient.failure = None
        await eventually(lambda: len(changed) == 2)
        assert changed == [PLACE, PLACE]
        assert is_up(health)
        assert {(target.backend, target.url) for target in patient.targets} == {PLACE}
        assert set(health.results) == {("v1", "success"), ("v1", "failure")}
        assert health.results.total() in (len(patient.targets), len(patient.targets) - 1)


async def test_a_reload_keeps_what_is_believed_of_an_endpoint() -> None:
    async with watched(config_of()) as (health, patient, changed):
        patient.failure = "refused"
        await eventually(lambda: bool(changed))
        health.adopt(config_of(interval="150ms"))
        state = health.state_of(PLACE)
        assert state is not None
        assert (state.is_up, state.reason) == (False, "refused")


async def test_an_endpoint_that_is_gone_is_checked_no_more() -> None:
    async with watched(config_of()) as (health, patient, _):
        await eventually(lambda: bool(patient.targets))
        health.adopt(loaded().config)
        assert health.state_of(PLACE) is None
        await eventually(lambda: f"health {URL}" not in task_names())


async def test_a_thousand_reloads_leave_one_task_per_endpoint() -> None:
    async with watched(config_of()) as (health, _, _changed):
        for turn in range(1000):
            config = config_of(interval="100ms" if turn % 2 else "200ms")
            await health.meet(config)
            health.adopt(config)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert task_names().count(f"health {URL}") == 1


async def test_an_added_endpoint_is_up_when_it_is_adopted_if_its_first_check_was_good() -> None:
    async with watched(config_of(interval="1h")) as (health, patient, changed):
        config = config_of(OTHER, interval="1h")
        await health.meet(config)
        health.adopt(config)
        assert changed == [ADDED]
        assert (is_up(health, ADDED), is_up(health)) == (True, True)
        assert [target.url for target in patient.targets] == [OTHER]


async def test_an_added_endpoint_is_down_until_a_check_was_good(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with watched(config_of(interval="1h")) as (health, patient, changed):
        patient.failures[OTHER] = "refused"
        config = config_of(OTHER)
        await health.meet(config)
        health.adopt(config)
        assert not is_up(health, ADDED)
        assert is_up(health)
        await eventually(lambda: patient.checks_of(OTHER) >= 2)
        patient.failures.clear()
        await eventually(lambda: is_up(health, ADDED))
        assert changed == [ADDED]
        told = [record.message for record in caplog.records if "endpoint" in record.message]
        assert told.count("endpoint_down") == 1


async def test_a_reload_does_not_wait_for_one_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MEET_S", 0.01)
    async with watched(config_of(interval="1h")) as (health, patient, _):
        patient.gate.clear()
        config = config_of(OTHER)
        await health.meet(config)
        health.adopt(config)
        state = health.state_of(ADDED)
        assert state is not None
        assert (state.is_up, state.reason) == (False, NOT_CHECKED)
        patient.gate.set()
        await eventually(lambda: is_up(health, ADDED))


async def test_a_refused_reload_leaves_nothing_of_what_it_would_have_added() -> None:
    async with watched(config_of()) as (health, patient, _):
        await health.meet(config_of(OTHER))
        health.adopt(config_of())
        assert health.state_of(ADDED) is None
        await eventually(lambda: f"health {OTHER}" not in task_names())
        await health.meet(config_of(OTHER))  # it is as new as it was
        assert patient.checks_of(OTHER) >= 2


async def test_an_endpoint_that_served_without_checks_stays_up_when_it_gets_one() -> None:
    unchecked = loaded(backends={"v1": {"endpoints": [URL]}, "v2": {"endpoints": [OTHER]}})
    async with watched(unchecked.config) as (health, patient, changed):
        patient.failure = "refused"
        config = config_of()
        await health.meet(config)
        health.adopt(config)
        assert is_up(health)
        assert changed == []


def pauses(*states: tuple[bool, int], interval: str = "10s") -> list[float]:
    """How long each of these endpoints, (is up, results against that), waits for its check."""
    health = Health(print, Patient(), Random(1))
    check = HealthCheck(path="/", interval=interval)  # type: ignore[arg-type]  # as in YAML
    for number, (up, streak) in enumerate(states):
        health._checked["v1", str(number)] = Checked(check, up, 0.0, streak=streak)
    health._checked["v2", "0"] = Checked(check, True, 0.0)
    return [health._pause_s(place, one) for place, one in health._checked.items()][:-1]


def test_checks_come_sooner_where_an_answer_is_wanted_soon() -> None:
    assert pauses((True, 0), (True, 1), (False, 0), (False, 1)) == [10.0, 2.0, 10.0, 2.0]
    assert pauses((False, 0), (False, 1)) == [1.0, 1.0]


def test_haste_has_its_bounds() -> None:
    assert pauses((True, 1), interval="100ms") == [0.05]
    assert pauses((False, 0), interval="100ms") == [0.05]
    assert pauses(*[(False, 0)] * 300) == [3.0] * 300
    assert pauses(*[(False, 0)] * 300, interval="1s") == [1.0] * 300


async def test_no_more_checks_are_under_way_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKS_MAX", 3)
    urls = [f"http://127.0.0.1:{port}" for port in range(100, 120)]
    async with watched(config_of(*urls)) as (_, patient, _changed):
        patient.gate.clear()
        await eventually(lambda: patient.under_way == 3)
        patient.gate.set()
        await eventually(lambda: len({target.url for target in patient.targets}) == 21)
        assert patient.most_under_way == 3
