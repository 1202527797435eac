from pathlib import Path

import pytest

from router.control import audit as module
from router.control.audit import Audit
from router.control.state import StateHolder
from router.errors import StateError
from router.rollouts.state import Event


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


async def test_without_a_store_the_last_lines_are_in_memory() -> None:
    audit = Audit(StateHolder(), lambda: 7, lambda: 5.0)
    for number in range(4):
        await audit.note(f"k{number}", "ann", "why", route="rq"[number % 2])
    assert kinds(await audit.events(None, 2, None)) == ["k2", "k3"]
    assert kinds(await audit.events(1, 2, None)) == ["k1", "k2"]
    assert kinds(await audit.events(None, 9, "q")) == ["k1", "k3"]
    assert await audit.events(3, 1, None) == [Event("q", "k3", "ann", 5.0, "why", 7, seq=4)]


async def test_of_too_many_the_oldest_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 2)
    audit = Audit(StateHolder(), lambda: 1)
    for number in range(4):
        await audit.note(f"k{number}", "ann", "")
    assert kinds(await audit.events(None, 9, None)) == ["k2", "k3"]


async def test_what_waited_goes_to_the_store_as_soon_as_one_is_open(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/state.db"
    state = StateHolder()
    audit = Audit(state, lambda: 1)
    await audit.note("before", "ann", "")
    await state.open(url)
    await audit.note("after", "ann", "")
    assert kinds(await audit.events(None, 9, None)) == ["before", "after"]
    await state.close()
    again = StateHolder()
    await again.open(url)
    assert kinds(await Audit(again, lambda: 1).events(None, 9, None)) == ["before", "after"]
    await again.close()


async def test_a_store_that_fails_fails_no_change_and_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = StateHolder()
    store = await state.open("memory:")
    await store.close()
    audit = Audit(state, lambda: 1)
    for _ in range(2):
        await audit.note("drain", "ann", "")
    assert [record.message for record in caplog.records] == ["audit_not_written"]
    with pytest.raises(StateError):
        await audit.events(None, 9, None)
    state.store = None
    await state.open("memory:")
    assert kinds(await audit.events(None, 9, None)) == ["drain", "drain"]
    await state.close()
