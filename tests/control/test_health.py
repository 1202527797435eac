import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from router.config.backends import HealthCheck
from router.config.model import Config
from router.control.health import Checked, Health, HttpProbe
from router.messages import EndpointHealth
from tests.control.support import Pushed, eventually, loaded

CHECK = {"path": "/ready", "interval": "100ms", "healthy_after": 2, "unhealthy_after": 3}
URL = "http://127.0.0.1:1"


def config_of(**check: Any) -> Config:
    backends = {
        "v1": {"endpoints": [URL], "health": CHECK | check},
        "v2": {"endpoints": ["http://127.0.0.1:2"]},
    }
    return loaded(backends=backends).config


class Patient:
    """A probe whose answers the test sets; never waits longer than an interval."""

    def __init__(self) -> None:
        self.failure: str | None = None
        self.urls: list[str] = []

    async def __call__(self, url: str, timeout_s: float) -> str | None:
        self.urls.append(url)
        return self.failure


def test_an_endpoint_changes_sides_after_enough_results_in_a_row() -> None:
    checked = Checked(HealthCheck(path="/", healthy_after=2, unhealthy_after=3), True, 0.0)
    results = ["no", "no", None, "no", "no", "no", "no", None, "no", None, None, None]
    changes = [checked.observe(failure, float(turn)) for turn, failure in enumerate(results)]
    assert [turn for turn, changed in enumerate(changes) if changed] == [5, 10]
    assert (checked.is_up, checked.since_s) == (True, 10.0)


@asynccontextmanager
async def watched(config: Config) -> AsyncIterator[tuple[Health, Patient, Pushed]]:
    patient, pushed = Patient(), Pushed()
    health = Health(pushed, patient, Random(1))
    health.adopt(config)
    yield health, patient, pushed
    await health.close()


def task_names() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks()]


async def test_workers_are_told_of_changes_only() -> None:
    async with watched(config_of()) as (health, patient, pushed):
        await eventually(lambda: len(patient.urls) >= 3)
        assert pushed == []
        assert health.down(config_of()) == {}
        patient.failure = "status 500"
        await eventually(lambda: bool(pushed))
        assert health.down(config_of()) == {"v1": [URL]}
        patient.failure = None
        await eventually(lambda: len(pushed) == 2)
        assert pushed == [EndpointHealth("v1", URL, False), EndpointHealth("v1", URL, True)]
        assert set(patient.urls) == {f"{URL}/ready"}


async def test_a_reload_keeps_what_is_believed_of_an_endpoint() -> None:
    async with watched(config_of()) as (health, patient, pushed):
        patient.failure = "refused"
        await eventually(lambda: bool(pushed))
        health.adopt(config_of(interval="150ms"))
        assert health.down(config_of()) == {"v1": [URL]}
        state = health.state_of("v1", URL)
        assert state is not None
        assert (state.is_up, state.reason) == (False, "refused")


async def test_an_endpoint_that_is_gone_is_checked_no_more() -> None:
    async with watched(config_of()) as (health, patient, _):
        await eventually(lambda: bool(patient.urls))
        health.adopt(loaded().config)
        assert health.state_of("v1", URL) is None
        await eventually(lambda: f"health {URL}" not in task_names())


async def test_a_thousand_reloads_leave_one_task_per_endpoint() -> None:
    async with watched(config_of()) as (health, _, _pushed):
        for turn in range(1000):
            health.adopt(config_of(interval="100ms" if turn % 2 else "200ms"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert task_names().count(f"health {URL}") == 1


@asynccontextmanager
async def origin(answer: bytes | None) -> AsyncIterator[str]:
    """A server that answers every connection with these bytes, or never."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()
        await writer.wait_closed()

    served: list[asyncio.Task[None]] = []

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.create_task(handle(reader, writer)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/ready"
    await asyncio.gather(*served, return_exceptions=True)


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", None),
        (b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", None),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "status 404"),
        (b"HTTP/1.1 503 No\r\ncontent-length: 5\r\n\r\n", "status 503"),
        (None, "no answer within 0.2 s"),
    ],
)
async def test_the_status_alone_decides(answer: bytes | None, failure: str | None) -> None:
    probe = HttpProbe()
    async with origin(answer) as url:
        assert await probe(url, 0.2) == failure
        await probe.close()


@pytest.mark.parametrize("answer", [b"", b"garbage\r\n\r\n"])
async def test_what_is_no_http_fails_with_a_reason(answer: bytes) -> None:
    probe = HttpProbe()
    async with origin(answer) as url:
        assert await probe(url, 1.0)
        await probe.close()


async def test_a_refused_connection_fails_with_a_reason() -> None:
    probe = HttpProbe()
    assert await probe("http://127.0.0.1:1/ready", 1.0) == "connection refused"
    await probe.close()
