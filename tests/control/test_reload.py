import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from router import logs
from router.control.plane import Phase, Plane
from router.control.reload import Reloader
from router.messages import Prepare
from tests.control.support import BANDIT, PLAIN, document, eventually, idle_plane, loaded


class Workers:
    """A supervisor that notes what it is asked; `objections` is what workers answer."""

    def __init__(self) -> None:
        self.journal: list[tuple[str, int]] = []
        self.trials: list[Prepare] = []
        self.objections: tuple[str, ...] = ()
        self.gate = asyncio.Event()
        self.gate.set()

    size = 2

    async def prepare(self, trial: Prepare) -> tuple[str, ...]:
        self.trials.append(trial)
        self.journal.append(("prepare", trial.generation))
        await self.gate.wait()
        return self.objections

    async def commit(self, generation: int) -> None:
        self.journal.append(("commit", generation))

    def discard(self, generation: int) -> None:
        self.journal.append(("discard", generation))


class Desk:
    """A reloader on a file the test writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write()
        self.workers = Workers()
        self.plane: Plane = idle_plane(loaded())
        self.plane.supervisor = self.workers  # type: ignore[assignment]  # a fake
        self.plane.phase = Phase.READY
        self.reloader = Reloader(self.plane, path, {})

    def write(self, text: bytes | None = None, **changes: Any) -> None:
        self.path.write_bytes(orjson.dumps(document(**changes)) if text is None else text)

    def in_force(self) -> tuple[int, str]:
        return self.plane.snapshot.generation, self.plane.snapshot.loaded.digest


@pytest.fixture
async def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    desk = Desk(tmp_path / "router.yaml")
    yield desk
    await desk.plane.endpoints.close()
    await desk.plane.learning.close()
    await desk.plane.state.close()


async def test_equal_content_changes_nothing(desk: Desk) -> None:
    before = desk.in_force()
    record = await desk.reloader.reload("signal")
    assert (record.result, record.is_success, record.trigger) == ("unchanged", True, "signal")
    assert desk.in_force() == before
    assert desk.workers.journal == []


async def test_a_good_file_is_put_in_force_everywhere(desk: Desk) -> None:
    desk.write(routes=[PLAIN, BANDIT])
    record = await desk.reloader.reload("file")
    assert record.result == "success"
    assert desk.plane.snapshot.generation == 2
    assert len(desk.plane.snapshot.loaded.config.routes) == 2
    assert desk.workers.journal == [("prepare", 2), ("commit", 2)]
    trial = desk.workers.trials[0]
    assert trial.weights == {"learner": {"v1": 0.5, "v2": 0.5}}
    assert trial.receipt_key == desk.plane.learning.receipt_key != ""
    assert desk.plane.reloads == {"success": 1}
    assert desk.plane.last_success_at_s == record.at_s


@pytest.mark.parametrize("text", [b"{", b"routes: []", b"\xff", b""])
async def test_a_bad_file_changes_nothing_but_the_record(desk: Desk, text: bytes) -> None:
    before = desk.in_force()
    desk.write(text)
    record = await desk.reloader.reload("file")
    assert record.result == "refused"
    assert record.errors
    assert (desk.plane.last_reload, desk.in_force()) == (record, before)
    assert desk.workers.journal == []
    assert desk.plane.last_success_at_s == 1.0


async def test_a_missing_file_changes_nothing_but_the_record(desk: Desk) -> None:
    desk.path.unlink()
    record = await desk.reloader.reload("file")
    assert record.result == "refused"
    assert str(desk.path) in record.errors[0]


async def test_going_back_to_the_good_file_ends_the_alarm(desk: Desk) -> None:
    desk.write(b"{")
    assert not (await desk.reloader.reload("file")).is_success
    desk.write()
    assert (await desk.reloader.reload("file")).result == "unchanged"
    assert desk.plane.last_reload is not None
    assert desk.plane.last_reload.is_success


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("listen", "127.0.0.1:7"),
        ("admin", {"listen": "127.0.0.1:7"}),
        ("workers", 3),
        ("state", "sqlite:///x"),
    ],
)
async def test_what_needs_a_restart_is_refused_by_name(desk: Desk, key: str, value: Any) -> None:
    before = desk.in_force()
    desk.write(**{key: value})
    record = await desk.reloader.reload("file")
    assert record.errors == (f"{key} cannot change at run time, it needs a restart",)
    assert desk.in_force() == before


async def test_what_a_worker_refuses_is_forgotten_by_all(desk: Desk) -> None:
    before = desk.in_force()
    desk.workers.objections = ("worker 1: no memory",)
    desk.write(routes=[BANDIT])
    record = await desk.reloader.reload("file")
    assert record.errors == ("worker 1: no memory",)
    assert desk.workers.journal == [("prepare", 2), ("discard", 2)]
    assert desk.in_force() == before
    assert desk.plane.learning.weights() == {}


async def test_the_number_of_a_refused_trial_is_not_used_again(desk: Desk) -> None:
    desk.workers.objections = ("no",)
    desk.write(routes=[BANDIT])
    await desk.reloader.reload("file")
    desk.workers.objections = ()
    await desk.reloader.reload("file")
    assert desk.plane.snapshot.generation == 3


async def test_reloads_wait_for_each_other(desk: Desk) -> None:
    desk.workers.gate.clear()
    desk.write(routes=[BANDIT])
    first = asyncio.create_task(desk.reloader.reload("file"))
    await eventually(lambda: bool(desk.workers.journal))
    second = asyncio.create_task(desk.reloader.reload("api"))
    await asyncio.wait({second}, timeout=0.2)  # it would have come as far as the workers
    desk.workers.gate.set()
    assert [(await first).result, (await second).result] == ["success", "unchanged"]
    assert desk.workers.journal == [("prepare", 2), ("commit", 2)]


async def test_a_stopping_program_takes_no_config(desk: Desk) -> None:
    desk.plane.phase = Phase.DRAINING
    desk.write(routes=[BANDIT])
    assert (await desk.reloader.reload("file")).errors == ("the program is stopping",)


async def test_a_bug_leaves_the_config_in_force(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("router.table.build", fail)
    before = desk.in_force()
    desk.write(routes=[BANDIT])
    record = await desk.reloader.reload("file")
    assert record.errors == ("internal error: a bug",)
    assert desk.in_force() == before


async def test_one_line_per_refusal_and_per_change(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await desk.reloader.reload("file")
    desk.write(b"{")
    await desk.reloader.reload("file")
    desk.write(routes=[BANDIT])
    await desk.reloader.reload("file")
    assert [record.getMessage() for record in caplog.records] == ["reload_refused", "reloaded"]
