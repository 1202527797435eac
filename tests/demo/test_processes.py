"""Children: readiness, sudden ends, and that none is ever left behind."""

import asyncio
import os
import sys
import time

import pytest

from router.demo import processes
from router.demo.processes import Child, DemoError, run_beside, run_guarded

SAY_READY = """import os; print('{"event": "ready", "pid": %d}' % os.getpid(), flush=True)\n"""
LIVE_ON = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit(0)); %ssignal.pause()"
PATIENCE_S = 20.0


async def start(code: str) -> Child:
    return await Child.start("kid", [sys.executable, "-c", code], {"KID": "1"})


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_child_is_ready_when_it_says_so_among_other_lines() -> None:
    child = await start("print('hello')\nprint('[1]')\n" + LIVE_ON % SAY_READY.replace("\n", ";"))
    ready = await child.ready(PATIENCE_S)
    assert ready["event"] == "ready"
    await child.stop()
    assert not is_alive(ready["pid"])


async def test_a_child_that_ends_before_it_is_ready_is_an_error_with_its_last_lines() -> None:
    child = await start("import sys; sys.exit('no such file')")
    with pytest.raises(DemoError, match=r"kid ended by itself with status 1.*\n +no such file"):
        await child.ready(PATIENCE_S)
    await child.stop()


async def test_a_child_that_is_never_ready_is_an_error_and_can_be_stopped() -> None:
    child = await start("import time; time.sleep(60)")
    with pytest.raises(DemoError, match="kid was not ready within 0 s"):
        await child.ready(0.01)
    await child.stop()


async def test_a_child_that_dies_after_it_was_ready_is_an_error() -> None:
    child = await start(SAY_READY + "os._exit(3)")
    await child.ready(PATIENCE_S)
    with pytest.raises(DemoError, match="kid ended by itself with status 3"):
        await asyncio.wait_for(child.guard(), PATIENCE_S)


async def test_a_child_that_ignores_sigterm_is_killed_with_its_own_children(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("router.demo.processes._STOP_PATIENCE_S", 0.05)
    deaf = (
        "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); grandchild = os.fork()\n"
    )
    say = """grandchild and print('{"event": "ready", "pid": %d}' % grandchild, flush=True)\n"""
    child = await start(deaf + say + "signal.alarm(60); signal.pause()")
    ready = await child.ready(PATIENCE_S)
    with pytest.raises(DemoError, match="kid did not stop within"):
        await child.stop()
    await until_gone(ready["pid"])


async def until_gone(pid: int) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while is_alive(pid) and not is_zombie(pid):
        assert time.monotonic() < deadline_s, f"{pid} is still alive"
        await asyncio.sleep(0.01)


def is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_a_child_that_stops_with_another_status_is_an_error() -> None:
    child = await start(
        "import signal; signal.signal(signal.SIGTERM, lambda *_: exit(5))\n"
        + SAY_READY
        + "signal.pause()"
    )
    await child.ready(PATIENCE_S)
    with pytest.raises(DemoError, match="kid stopped with status 5"):
        await child.stop()


async def test_a_dead_child_is_blamed_for_the_error_that_it_caused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "_BLAME_PATIENCE_S", PATIENCE_S)
    child = await start(SAY_READY + "os._exit(3)")

    async def main() -> None:
        await child.ready(PATIENCE_S)
        raise DemoError("no connection")

    with pytest.raises(DemoError, match="kid ended by itself with status 3"):
        await run_guarded(main(), [child])


async def test_an_error_while_all_children_live_is_raised_as_it_is() -> None:
    child = await start(LIVE_ON % SAY_READY.replace("\n", ";"))
    await child.ready(PATIENCE_S)
    with pytest.raises(DemoError, match="a helper failed"):
        await run_guarded(fail(), [child])
    await child.stop()


async def forever() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise DemoError("a helper failed")


async def test_the_main_task_outlives_helpers_that_return_and_ends_those_that_do_not() -> None:
    async def main() -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "done"

    async def brief() -> None:
        pass

    before = asyncio.all_tasks()
    assert await run_beside(main(), brief(), forever()) == "done"
    assert asyncio.all_tasks() == before


async def test_a_helper_that_fails_ends_the_main_task() -> None:
    before = asyncio.all_tasks()
    with pytest.raises(DemoError, match="a helper failed"):
        await run_beside(forever(), forever(), fail())
    assert asyncio.all_tasks() == before
