"""The whole demo as a user starts it: real models, a real router, real processes."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.process
PATIENCE_S = 90.0


@asynccontextmanager
async def demo(directory: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m router demo`, with `directory` for its temporary files; stopped if left over."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "router", "demo", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "TMPDIR": str(directory)},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.communicate(), PATIENCE_S)


async def read_until(process: asyncio.subprocess.Process, pattern: str) -> str:
    assert process.stdout is not None
    text = ""
    async with asyncio.timeout(PATIENCE_S):
        while not re.search(pattern, text):
            line = await process.stdout.readline()
            assert line, f"ended without {pattern!r}:\n{text}"
            text += line.decode()
    return text


def left_in(directory: Path) -> list[str]:
    """Files in `directory`, and running processes that were started with it as TMPDIR."""
    mark = f"TMPDIR={directory}\0".encode()
    left = [str(path) for path in directory.iterdir()]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes():
                left.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # ended while we looked, or is not ours
    return left


async def test_the_demo_keeps_all_its_promises_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with demo(tmp_path, "--seconds", "5", "--plain") as process:
        async with asyncio.timeout(PATIENCE_S):
            output, _ = await process.communicate()
    text = output.decode()
    assert process.returncode == 0, text
    assert len(re.findall(r"^  ok  ", text, re.MULTILINE)) == 6
    assert "FAIL" not in text
    assert "Traceback" not in text
    assert "\x1b" not in text
    assert left_in(tmp_path) == []


async def test_a_signal_ends_the_demo_in_order(tmp_path: Path) -> None:
    async with demo(tmp_path, "--plain") as process:
        text = await read_until(process, "admin API on")
        assert len(left_in(tmp_path)) > 3
        process.send_signal(signal.SIGINT)
        text += await read_until(process, "stopped")
        async with asyncio.timeout(PATIENCE_S):
            assert await process.wait() == 130
    assert "Traceback" not in text
    assert left_in(tmp_path) == []


async def test_a_model_server_that_dies_ends_the_demo_with_its_name(tmp_path: Path) -> None:
    async with demo(tmp_path, "--plain") as process:
        await read_until(process, "images a second")
        (victim,) = children_serving(process.pid, "cat-dog-next")
        os.kill(victim, signal.SIGKILL)
        text = await read_until(process, "the demo failed")
        async with asyncio.timeout(PATIENCE_S):
            assert await process.wait() == 1
    assert "cat-dog-next ended by itself with status -9" in text
    assert left_in(tmp_path) == []


def children_serving(parent: int, model: str) -> list[int]:
    """Process ids of `parent`'s model servers for `model`."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    wanted = f"--model\0{model}\0".encode()
    return [int(pid) for pid in children if wanted in Path(f"/proc/{pid}/cmdline").read_bytes()]
