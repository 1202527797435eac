"""Every way in which a file comes to have another content is seen, and nothing else is."""

# ruff: noqa: ASYNC110, ASYNC240 - files are what is tested; what cannot tell is polled, with a deadline

import asyncio
import contextlib
import gc
import hashlib
import itertools
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest

from router.config.watch import changes

_DEADLINE_S = 5.0
_NEVER_S = 3600.0
"""Polling that does not happen during a test: what is seen is seen by an event."""


class Watch:
    """Counts what `changes` yields. The first is for what was there, so that it is under way."""

    def __init__(self, path: Path, poll_s: float) -> None:
        self.count = 0
        self._changes = changes(path, poll_s, digest("what was there before"))
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async for _ in self._changes:
            self.count += 1

    async def reaches(self, count: int, again: Callable[[], object] = lambda: None) -> None:
        """Wait until `count` changes were seen; fails when it takes too long.

        `again` is repeated meanwhile, five times a second: what happens before the system watches
        the directory makes no event.
        """
        rounds = 0
        async with asyncio.timeout(_DEADLINE_S):
            while self.count < count:
                if rounds % 20 == 0:
                    again()
                if self.task.done():
                    self.task.result()
                rounds += 1
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


Start = Callable[..., Awaitable[Watch]]


@pytest.fixture
async def start() -> AsyncGenerator[Start, None]:
    """Start a watch that ends with the test."""
    watches: list[Watch] = []

    async def begin(path: Path, poll_s: float = 0.02) -> Watch:
        watches.append(Watch(path, poll_s))
        await watches[-1].reaches(1)
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


def replace(path: Path, text: str) -> None:
    """Rename a new file over `path`, as editors do."""
    fresh = path.with_name("fresh")
    fresh.write_text(text)
    fresh.replace(path)


def swap(link: Path, target: str) -> None:
    """Point `link` to `target` in one step, as Kubernetes does with `..data`."""
    fresh = link.with_name("..fresh")
    fresh.symlink_to(target)
    fresh.replace(link)


def alternate(act: Callable[[str], object]) -> Callable[[], None]:
    """Call `act` with `a`, `b`, `a` …"""
    words = itertools.cycle("ab")

    def again() -> None:
        act(next(words))

    return again


# at once, by events: polling never happens


async def test_a_write_in_place_is_seen_at_once(start: Start, path: Path) -> None:
    watch = await start(path, _NEVER_S)
    await watch.reaches(3, alternate(path.write_text))


async def test_a_rename_over_the_file_is_seen_at_once(start: Start, path: Path) -> None:
    watch = await start(path, _NEVER_S)
    await watch.reaches(3, alternate(lambda text: replace(path, text)))


async def test_the_swap_of_a_config_map_is_seen_at_once(start: Start, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "router.yaml").write_text(name)
    (tmp_path / "..data").symlink_to("a")
    (tmp_path / "router.yaml").symlink_to("..data/router.yaml")
    watch = await start(tmp_path / "router.yaml", _NEVER_S)
    await watch.reaches(3, alternate(lambda name: swap(tmp_path / "..data", name)))


async def test_a_new_directory_in_place_of_the_old_is_watched_instead(
    start: Start, tmp_path: Path
) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "router.yaml").write_text(f"in {name}")
    link = tmp_path / "etc"
    link.symlink_to("a")
    watch = await start(link / "router.yaml", _NEVER_S)
    await watch.reaches(2, alternate((tmp_path / "a" / "router.yaml").write_text))
    seen = watch.count
    swap(link, "b")
    await watch.reaches(seen + 1, (tmp_path / "a" / "last event").touch)
    await watch.reaches(seen + 3, alternate((tmp_path / "b" / "router.yaml").write_text))


# within `poll_s`, by looking: no event tells of these


async def test_a_file_in_a_directory_that_is_not_watched_is_looked_at(
    start: Start, path: Path, tmp_path: Path
) -> None:
    """As with a single file that is bind-mounted: it is written where nobody here looks."""
    target = tmp_path / "elsewhere.yaml"
    target.write_text("one")
    path.unlink()
    path.symlink_to(target)
    watch = await start(path)
    target.write_text("two")
    await watch.reaches(2)
    replace(target, "three")
    await watch.reaches(3)


async def test_the_swap_of_the_directory_itself_is_seen(start: Start, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "router.yaml").write_text(name)
    link = tmp_path / "etc"
    link.symlink_to("a")
    watch = await start(link / "router.yaml")
    swap(link, "b")
    await watch.reaches(2)
    swap(link, "a")
    await watch.reaches(3)


# what is no change


async def looked(path: Path) -> None:
    """Wait until a watch that started now has looked several times; so has every other."""
    other = path.with_name("other") / "router.yaml"
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_text("a")
    watch = Watch(other, 0.02)
    await watch.reaches(4, alternate(other.write_text))
    await watch.close()


async def test_equal_content_is_no_change(start: Start, path: Path, tmp_path: Path) -> None:
    watch = await start(path)
    path.write_text("one")
    replace(path, "one")
    os.utime(path)
    (path.parent / "neighbour.yaml").write_text("two")
    await looked(tmp_path)
    assert watch.count == 1


async def test_a_file_that_is_missing_for_a_while_is_no_change(
    start: Start, path: Path, tmp_path: Path
) -> None:
    watch = await start(path)
    path.unlink()
    await looked(tmp_path)
    assert watch.count == 1
    path.write_text("one")
    await looked(tmp_path)
    assert watch.count == 1
    path.write_text("two")
    await watch.reaches(2)


async def test_a_directory_that_is_missing_for_a_while_is_waited_for(
    start: Start, path: Path, tmp_path: Path
) -> None:
    watch = await start(path)
    path.unlink()
    path.parent.rmdir()
    await looked(tmp_path)
    assert watch.count == 1
    path.parent.mkdir()
    path.write_text("two")
    await watch.reaches(2)
    path.write_text("three")
    await watch.reaches(3)


async def test_a_file_that_comes_into_being_is_seen(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "not yet" / "router.yaml"
    watch = Watch(path, 0.02)
    await looked(tmp_path)
    assert watch.count == 0
    path.parent.mkdir()
    path.write_text("one")
    await watch.reaches(1)
    await watch.close()


async def test_without_a_known_content_what_is_there_at_the_start_is_known(
    path: Path, tmp_path: Path
) -> None:
    found = changes(path, 0.02)
    seen = asyncio.ensure_future(anext(found))
    await looked(tmp_path)
    assert not seen.done()
    path.write_text("two")
    async with asyncio.timeout(_DEADLINE_S):
        await seen
    await found.aclose()


async def test_nothing_is_left_behind_after_closing(path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        cancelled = Watch(path, _NEVER_S)
        await cancelled.reaches(2, alternate(path.write_text))
        await cancelled.close()
        closed = changes(path, 0.02, digest("what was there before"))
        await anext(closed)
        await closed.aclose()
    gc.collect()
    async with asyncio.timeout(_DEADLINE_S):
        while len(os.listdir("/proc/self/fd")) > before:
            await asyncio.sleep(0.01)
