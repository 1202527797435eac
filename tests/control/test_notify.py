"""News for systemd, received as systemd does: on a datagram socket."""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from router.control.notify import Notifier

Listen = Callable[[], list[str]]


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """What `NOTIFY_SOCKET` says, and the manager's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        if request.param == "path":
            address = str(tmp_path / "notify")
            sock.bind(address)
        else:
            address = f"@pointsman-test-{os.getpid()}"
            sock.bind("\0" + address[1:])
        sock.settimeout(5)
        yield address, sock


def told(sock: socket.socket) -> dict[str, str]:
    lines = sock.recv(4096).decode().split("\n")
    return dict(line.split("=", 1) for line in lines)


def test_each_phase_is_told(manager: tuple[str, socket.socket]) -> None:
    address, sock = manager
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.ready("ready: 4 workers")
    assert told(sock) == {
        "READY": "1",
        "MAINPID": str(os.getpid()),
        "STATUS": "ready: 4 workers",
    }
    notifier.reloading()
    reloading = told(sock)
    assert (reloading["RELOADING"], reloading["STATUS"]) == ("1", "reloading")
    assert int(reloading["MONOTONIC_USEC"]) > 0
    notifier.stopping(31.5)
    assert told(sock) == {
        "STOPPING": "1",
        "EXTEND_TIMEOUT_USEC": "31500000",
        "STATUS": "draining",
    }


async def test_the_watchdog_hears_from_us_twice_in_its_time(
    manager: tuple[str, socket.socket],
) -> None:
    address, sock = manager
    env = {
        "NOTIFY_SOCKET": address,
        "WATCHDOG_USEC": "100000",
        "WATCHDOG_PID": str(os.getpid()),
    }
    notifier = Notifier(env)
    assert notifier.watchdog_s == 0.1
    watching = asyncio.create_task(notifier.watch())
    for _ in range(3):
        assert await asyncio.to_thread(told, sock) == {"WATCHDOG": "1"}
    watching.cancel()


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"NOTIFY_SOCKET": "/run/x"},
        {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
        {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "often"},
        {"WATCHDOG_USEC": "1000"},
    ],
)
async def test_a_watchdog_that_is_not_ours_hears_nothing(env: dict[str, str]) -> None:
    await Notifier(env).watch()


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "vsock:2:1234"])
def test_a_manager_that_is_not_there_is_no_reason_to_fail(address: str) -> None:
    Notifier({"NOTIFY_SOCKET": address}).ready("ready")
