"""Every way in which a file comes to have another content is seen, and nothing else is."""

import asyncio
import contextlib
import gc
import hashlib
import os
import threading
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from router.config.watch import changes

_DEADLINE_S = 5.0
_NEVER_S = 3600.0
"""Polling that does not happen during a test: what is seen is seen by an event."""


class Watch:
    """Counts what `changes` yields."""

    def __init__(self, path: Path, poll_s: float, digest: str | None = None) -> None:
        self.count = 0
        self._changes = changes(path, poll_s, digest)
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async for _ in self._changes:
            self.count += 1

    async def reaches(self, count: int) -> None:
        """Wait until `count` changes were seen; fails when it takes too long."""
        async with asyncio.timeout(_DEADLINE_S):
            while self.count < count:
                if self.task.done():
                    self.task.result()
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
        await self._changes.aclose()


Start = Callable[..., Watch]


@pytest.fixture
async def start() -> AsyncGenerator[Start, None]:
    """Start a watch that ends with the test."""
    watches: list[Watch] = []

    def begin(path: Path, poll_s: float = 0.02, digest: str | None = None) -> Watch:
        watches.append(Watch(path, poll_s, digest))
        return watches[-1]

    yield begin
    for watch in watches:
        await watch.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "etc" / "router.yaml"
    path.parent.mkdir()
    path.write_text("one")
    return path


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


async def settled(watch: Watch, path: Path, text: str, seen: int) -> None:
    """A change that is certain to be seen came through: whatever came before it was not one."""
    path.write_text(text)
    await watch.reaches(seen)
    assert watch.count == seen


def swap_directory(link: Path, target: Path) -> None:
    """Point `link` to `target` in one step, as Kubernetes does with `..data`."""
    fresh = link.with_name("..fresh")
    fresh.symlink_to(target)
    os.replace(fresh, link)


# by events alone


async def until_watching(watch: Watch, path: Path) -> None:
    """Write until the first change is seen; then the events are flowing."""
    async with asyncio.timeout(_DEADLINE_S):
        i = 0
        while watch.count == 0:
            i += 1
            path.write_text(f"warm-up {i}")
            for _ in range(50):
                if watch.count:
                    break
                await asyncio.sleep(0.01)


async def test_a_write_in_place_is_seen_at_once(start: Start, path: Path) -> None:
    watch = start(path, _NEVER_S, digest("one"))
    await until_watching(watch, path)
    seen = watch.count
    path.write_text("two")
    await watch.reaches(seen + 1)


async def test_a_rename_over_the_file_is_seen_at_once(start: Start, path: Path) -> None:
    watch = start(path, _NEVER_S, digest("one"))
    await until_watching(watch, path)
    seen = watch.count
    fresh = path.with_name(".router.yaml.swp")
    fresh.write_text("two")
    fresh.replace(path)
    await watch.reaches(seen + 1)


async def test_the_swap_of_a_config_map_is_seen_at_once(start: Start, tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    for name in ("..1", "..2", "..3"):
        (mount / name).mkdir(parents=True)
        (mount / name / "router.yaml").write_text(name)
    (mount / "..data").symlink_to("..1")
    (mount / "router.yaml").symlink_to("..data/router.yaml")
    watch = start(mount / "router.yaml", _NEVER_S, digest("another"))
    await watch.reaches(1)  # what was there first was not what was known
    async with asyncio.timeout(_DEADLINE_S):
        while watch.count == 1:  # the watch may begin after the first swap
            for target in ("..2", "..3"):
                swap_directory(mount / "..data", Path(target))
                await asyncio.sleep(0.2)


# by looking every now and then


async def test_a_file_outside_the_watched_directory_is_looked_at(
    start: Start, path: Path, tmp_path: Path
) -> None:
    target = tmp_path / "elsewhere.yaml"
    target.write_text("one")
    path.unlink()
    path.symlink_to(target)
    watch = start(path, digest=digest("one"))
    target.write_text("two")
    await watch.reaches(1)


async def test_the_swap_of_the_directory_itself_is_seen(start: Start, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "router.yaml").write_text(name)
    link = tmp_path / "etc"
    link.symlink_to("a")
    watch = start(link / "router.yaml", digest=digest("a"))
    swap_directory(link, Path("b"))
    await watch.reaches(1)
    (tmp_path / "b" / "router.yaml").write_text("c")
    await watch.reaches(2)


async def test_equal_content_is_no_change(start: Start, path: Path) -> None:
    watch = start(path, digest=digest("one"))
    path.write_text("one")
    fresh = path.with_name("fresh")
    fresh.write_text("one")
    fresh.replace(path)
    (path.parent / "other.yaml").write_text("two")
    os.utime(path)
    await settled(watch, path, "two", 1)


async def test_what_is_there_at_the_start_is_known(start: Start, path: Path) -> None:
    watch = start(path)
    await asyncio.sleep(0)
    async with asyncio.timeout(_DEADLINE_S):
        while watch.count == 0:
            path.write_text(f"{path.read_text()}+")
            await asyncio.sleep(0.2)


async def test_a_change_before_the_start_is_seen_when_the_known_content_is_given(
    start: Start, path: Path
) -> None:
    watch = start(path, digest=digest("zero"))
    await watch.reaches(1)


async def test_a_file_that_is_missing_for_a_while_is_no_change(start: Start, path: Path) -> None:
    watch = start(path, digest=digest("one"))
    path.unlink()
    await looked(path)
    path.write_text("one")
    await settled(watch, path, "two", 1)


async def test_a_directory_that_is_missing_for_a_while_is_waited_for(
    start: Start, path: Path
) -> None:
    watch = start(path, digest=digest("one"))
    path.unlink()
    path.parent.rmdir()
    await looked(path)
    path.parent.mkdir()
    path.write_text("two")
    await watch.reaches(1)
    path.write_text("three")
    await watch.reaches(2)


async def looked(path: Path) -> None:
    """Another watch that started now has looked several times."""
    other = path.parent.parent / "other.yaml"
    other.write_text("a")
    watch = Watch(other, 0.02, digest("a"))
    await settled(watch, other, "b", 1)
    await settled(watch, other, "c", 2)
    await watch.close()


async def test_nothing_is_left_behind_after_closing(path: Path) -> None:
    open_before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        watch = Watch(path, _NEVER_S, digest("zero"))
        await watch.reaches(1)
        await watch.close()
    gc.collect()
    async with asyncio.timeout(_DEADLINE_S):
        while len(os.listdir("/proc/self/fd")) > open_before + 1:  # the loop may keep one
            await asyncio.sleep(0.01)
    assert sum(thread.is_alive() for thread in threading.enumerate()) < 20
