"""The program as a service manager sees it: its notifications, and whom the kernel kills first."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.harness import DEADLINE_S, document, poll, serving
from tests.serve.origins import Servers

pytestmark = pytest.mark.process


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's end of the notify socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(DEADLINE_S)
        yield sock


def told(manager: socket.socket) -> dict[str, str]:
    """The next notification that is not the watchdog's."""
    while (text := manager.recv(4096).decode()) == "WATCHDOG=1":
        pass
    return dict(line.split("=", 1) for line in text.split("\n"))


def test_a_service_manager_is_told_of_each_phase(
    tmp_path: Path, servers: Servers, manager: socket.socket
) -> None:
    env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
    config = document(servers)
    with serving(tmp_path, config, env=env) as router:
        pid = str(router.process.pid)
        ready = {"READY": "1", "MAINPID": pid, "STATUS": "ready: 1 workers, config 1"}
        assert told(manager) == ready
        router.path.write_text("routes: [")
        router.signal(signal.SIGHUP)
        assert told(manager)["RELOADING"] == "1"
        assert told(manager) == ready  # the file was refused; the program serves
        router.write_and_wait({**config, "drain_timeout": "7s"})
        assert told(manager)["RELOADING"] == "1"
        assert told(manager)["STATUS"].startswith("ready: 1 workers, config ")
        assert manager.recv(4096) == b"WATCHDOG=1"
        router.signal(signal.SIGTERM)
        stopping = told(manager)
        assert (stopping["STOPPING"], stopping["EXTEND_TIMEOUT_USEC"]) == ("1", "12000000")
        assert router.wait() == 0


def test_the_kernel_kills_a_worker_before_control_and_workers_do_not_speak_for_it(
    tmp_path: Path, servers: Servers, manager: socket.socket
) -> None:
    env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
    with serving(tmp_path, document(servers, workers=2), env=env) as router:
        poll(lambda: len(router.spawned()) == 3, "two workers and a spare")

        def score(pid: int) -> int:
            return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

        control = score(router.process.pid)
        assert [score(pid) for pid in router.worker_pids()] == [control + 100] * 2
        for pid in router.spawned():
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            assert not [v for v in environment if v.startswith((b"NOTIFY_", b"WATCHDOG_"))]
        router.stop()
