"""Accepting: pauses for lack of open files, and the end, which resets nobody."""

import asyncio
import errno
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from router.config.model import Config
from router.data import acceptor as module
from router.data.endpoint import EndpointPool
from router.messages import Drain
from tests.data.harness import Lab, Wire, document, eventually, request, soon


def knock(port: int, count: int) -> list[socket.socket]:
    """Connections that lie in the kernel's queue: the loop does not run meanwhile."""
    return [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]


async def wires(lab: Lab, socks: list[socket.socket]) -> list[Wire]:
    opened = [Wire(*await asyncio.open_connection(sock=sock)) for sock in socks]
    lab.clients += opened
    return opened


async def answers(clients: list[Wire]) -> list[tuple[int, str | None]]:
    """Status and `connection` of an answer to each."""
    for client in clients:
        client.send(request())
    got = [await client.message() for client in clients]
    return [(message.status, message.field("connection")) for message in got]


@pytest.fixture
def few_files(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hardly any file may be opened beyond those that the worker starts with."""
    monkeypatch.setattr(module, "_LOOK_S", 0.01)
    yield
    assert lab.router.worker.acceptor._last_file < 10_000  # the test did set it


async def test_what_waits_to_be_accepted_at_the_end_is_served(lab: Lab) -> None:
    router = await lab.start(document(await lab.answering()))
    queued = knock(router.port, 50)
    router.send(Drain(0.0, 5.0))
    clients = await wires(lab, queued)
    assert await answers(clients) == [(200, "close")] * 50
    assert router.run is not None
    await soon(asyncio.wait([router.run]))
    with pytest.raises(ConnectionRefusedError):
        await lab.client()


async def test_with_a_successor_the_queue_is_left_to_it(lab: Lab) -> None:
    router = await lab.start(document(await lab.answering()))
    with closing(router.worker.acceptor.listener.dup()) as successor:
        queued = knock(router.port, 5)
        router.worker.departure.start(Drain(0.0, 5.0, has_successor=True))
        assert router.run is not None
        await soon(asyncio.wait([router.run]))
        queued += knock(router.port, 5)
        for sock in queued:
            accepted, _ = successor.accept()
            accepted.close()
            sock.close()


async def test_without_files_accepting_pauses_and_nobody_is_turned_away(
    lab: Lab, few_files: None, caplog: pytest.LogCaptureFixture
) -> None:
    router = await lab.start(document(await lab.answering()))
    (first,) = await wires(lab, knock(router.port, 1))
    assert await answers([first]) == [(200, None)]
    acceptor = router.worker.acceptor
    acceptor._last_file = 0
    queued = knock(router.port, 20)
    clients = await wires(lab, queued)
    await eventually(lambda: acceptor.is_paused)
    for client in clients:
        client.send(request())
    assert await answers([first]) == [(200, None)]  # who is connected notices nothing
    await router.flush()
    assert router.counted("accept_paused") == 1
    assert router.gauges["pointsman_accept_paused"] == 1
    acceptor._last_file = 9_999  # files were closed
    for client in clients:
        assert (await client.message()).status == 200
    await router.flush()
    assert router.gauges["pointsman_accept_paused"] == 0
    logged = [record.message for record in caplog.records if "accept" in record.message]
    assert logged == ["accept_paused", "accept_resumed"]


async def test_pauses_that_follow_each_other_are_told_once(
    lab: Lab, few_files: None, caplog: pytest.LogCaptureFixture
) -> None:
    router = await lab.start(document(await lab.answering()))
    acceptor = router.worker.acceptor
    for pause in range(3):
        acceptor._last_file = 0
        clients = await wires(lab, knock(router.port, 1))
        await eventually(lambda: acceptor.is_paused)
        acceptor._last_file = 9_999
        await eventually(lambda: not acceptor.is_paused)
        assert await answers(clients) == [(200, None)]
        await router.flush()
        assert router.counted("accept_paused") == pause + 1
    assert [record.message for record in caplog.records].count("accept_paused") == 1


async def test_a_pause_at_the_end_loses_nobody_either(lab: Lab, few_files: None) -> None:
    router = await lab.start(document(await lab.answering()))
    acceptor = router.worker.acceptor
    acceptor._last_file = 0
    clients = await wires(lab, knock(router.port, 10))
    await eventually(lambda: acceptor.is_paused)
    router.send(Drain(0.0, 5.0))
    await eventually(lambda: router.worker.is_draining)
    acceptor._last_file = 9_999
    assert await answers(clients) == [(200, "close")] * 10


@pytest.mark.parametrize(
    ("backend_limit", "open_files", "pauses_at"),
    [(10, 1000, 984), (100, 1000, 900), (512, 1000, 500), (20_000, 100_000, 90_000)],
)
async def test_files_are_kept_for_endpoints(
    lab: Lab,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    backend_limit: int,
    open_files: int,
    pauses_at: int,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (open_files, open_files))
    settings = document(await lab.answering(), limits={"connections": backend_limit})
    router = await lab.start(settings)
    assert router.worker.acceptor._last_file == pauses_at
    is_bounded = Config.model_validate(settings).downstream.connections > pauses_at
    assert ("connections_bounded" in caplog.messages) == is_bounded


async def test_a_lack_of_files_is_not_held_against_an_endpoint(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = await lab.start(document(await lab.answering(), outlier={"consecutive_failures": 1}))

    async def fail(_: EndpointPool) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(EndpointPool, "connect", fail)
        assert [(await lab.ask(request())).status for _ in range(5)] == [502] * 5
    assert (await lab.ask(request())).status == 200
    await router.flush()
    assert router.counted("upstream_failures", "v1", "exhausted") >= 5
    assert router.counted("ejections", "v1", "consecutive-failures") == 0
