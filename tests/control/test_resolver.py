import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from router.config.model import Config
from router.control import resolver as module
from router.control.resolver import Resolver, is_name, look_up
from tests.control.support import Pushed, eventually, loaded

NAME = "replicas.example"
URL = f"http://{NAME}:8000"


def config_of(*urls: str, resolve: str = "100ms") -> Config:
    backends = {
        "v1": {"endpoints": list(urls or (URL,)), "resolve": resolve},
        "v2": {"endpoints": ["http://127.0.0.1:2", "http://localhost:3", "http://[::1]:4"]},
    }
    return loaded(backends=backends).config


class Names:
    """A look-up whose answers the test sets; `gate` holds them back."""

    def __init__(self) -> None:
        self.addresses: Iterable[str] = ("10.0.0.2", "10.0.0.1")
        self.failure: Exception | None = None
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way = 0

    async def __call__(self, name: str) -> Iterable[str]:
        self.asked.append(name)
        self.under_way += 1
        try:
            await self.gate.wait()
        finally:
            self.under_way -= 1
        if self.failure is not None:
            raise self.failure
        return self.addresses


@asynccontextmanager
async def resolving(config: Config) -> AsyncIterator[tuple[Resolver, Names, Pushed]]:
    names, changed = Names(), Pushed()
    clock = iter(range(1, 1_000_000))
    resolver = Resolver(changed, names, Random(1), lambda: float(next(clock)))
    resolver.adopt(config)
    yield resolver, names, changed
    await resolver.close()


def addresses(resolver: Resolver, url: str = URL) -> tuple[str, ...]:
    state = resolver.state_of(url)
    assert state is not None
    return state.addresses


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == module.__name__]


async def test_all_addresses_of_a_name_are_known_in_an_order_that_does_not_change() -> None:
    async with resolving(config_of()) as (resolver, names, changed):
        names.addresses = ["10.0.0.2", "fe80::1", "10.0.0.10", "10.0.0.2"]
        await eventually(lambda: len(names.asked) >= 2)
        assert addresses(resolver) == ("10.0.0.2", "10.0.0.10", "fe80::1")
        names.addresses = ["10.0.0.10", "fe80::1", "10.0.0.2"]
        await eventually(lambda: len(names.asked) >= 4)
        assert changed == [NAME]


async def test_a_changed_set_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with resolving(config_of()) as (resolver, names, changed):
        await eventually(lambda: changed == [NAME])
        names.addresses = ["10.0.0.1"]
        await eventually(lambda: changed == [NAME, NAME])
        assert addresses(resolver) == ("10.0.0.1",)
        assert events(caplog) == ["addresses_changed"]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (UnicodeError("label too long"), "label too long"),
        (None, "the name has no address"),
    ],
)
async def test_the_last_good_addresses_stay_when_a_look_up_fails(
    caplog: pytest.LogCaptureFixture, failure: Exception | None, reason: str
) -> None:
    caplog.set_level(logging.INFO)
    async with resolving(config_of()) as (resolver, names, changed):
        await eventually(lambda: changed == [NAME])
        names.failure, names.addresses = failure, []
        await eventually(lambda: resolver.failures[(NAME,)] >= 3)
        state = resolver.state_of(URL)
        assert state is not None
        assert (state.addresses, state.failure) == (("10.0.0.1", "10.0.0.2"), reason)
        since_s = state.failing_since_s
        assert since_s is not None
        assert changed == [NAME]
        assert events(caplog) == ["not_resolved"]

        names.failure, names.addresses = None, ["10.0.0.1", "10.0.0.2"]
        await eventually(lambda: resolver.state_of(URL).failure is None)  # type: ignore[union-attr]  # it is there, see above
        assert changed == [NAME]
        assert events(caplog) == ["not_resolved", "resolved_again"]


async def test_a_look_up_that_hangs_is_a_failure_and_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.01)
    async with resolving(config_of()) as (resolver, names, changed):
        names.gate.clear()
        await eventually(lambda: resolver.failures[(NAME,)] >= 3)
        assert names.asked == [NAME]
        names.gate.set()
        await eventually(lambda: changed == [NAME])


async def test_no_more_look_ups_are_under_way_than_the_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LOOKUPS_MAX", 3)
    urls = [f"http://replica-{n}.example:8000" for n in range(20)]
    async with resolving(config_of(*urls)) as (_, names, changed):
        names.gate.clear()
        await eventually(lambda: names.under_way == 3)
        names.gate.set()
        await eventually(lambda: len(changed) == 20)


async def test_addresses_and_this_machine_are_not_looked_up_nor_what_never_is() -> None:
    async with resolving(config_of(resolve="0s")) as (resolver, names, _):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert names.asked == []
        assert resolver.state_of(URL) is None
        assert resolver.state_of("http://127.0.0.1:2") is None


async def test_a_reload_keeps_the_addresses_of_a_name_as_long_as_it_is_there() -> None:
    async with resolving(config_of()) as (resolver, names, changed):
        await eventually(lambda: changed == [NAME])
        for turn in range(1000):
            resolver.adopt(config_of(resolve="150ms" if turn % 2 else "100ms"))
        names.gate.clear()
        assert addresses(resolver) == ("10.0.0.1", "10.0.0.2")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks = [task.get_name() for task in asyncio.all_tasks()]
        assert tasks.count(f"resolve {NAME}") == 1
        resolver.adopt(loaded().config)
        assert resolver.state_of(URL) is None


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("replicas.example", True),
        ("replicas", True),
        ("10.0.0.1", False),
        ("::1", False),
        ("localhost", False),
        ("a.localhost", False),
        ("localhost.example", True),
    ],
)
def test_what_is_a_name(host: str, expected: bool) -> None:
    assert is_name(host) is expected


async def test_the_system_is_asked_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Any] = [(2, 1, 6, "", ("10.0.0.1", 0)), (2, 1, 6, "", ("10.0.0.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: rows)
    assert set(await look_up(NAME)) == {"10.0.0.1"}


async def test_what_the_system_does_not_know_is_an_error() -> None:
    with pytest.raises(OSError, match="not known"):
        await look_up("nobody.invalid")
