"""A start that cannot succeed: one clear reason, the documented status, nothing left running."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.serve.harness import DEADLINE_S, Router, bandit, document, is_alive, poll, serving
from tests.serve.origins import Servers

pytestmark = pytest.mark.process


def attempt(path: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "router", "serve", str(path)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env=os.environ | env,
        check=False,
    )


def written(directory: Path, config: dict[str, Any] | str) -> Path:
    path = directory / "router.yaml"
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return path


def test_every_mistake_in_the_config_is_told_and_nothing_is_started(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "wrokers: 2\nbackends:\n  v1: {endpoints: [http://127.0.0.1:1]}\n"
        "routes:\n  - {name: a, backend: v2}\n  - {name: a, backend: v1, shadow: 5}\n",
    )
    done = attempt(path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [f"{path}:1:1", "wrokers"],
        [f"{path}:5:24", "routes[0].backend"],
        [f"{path}:6:12", "routes[1].name"],
        [f"{path}:6:36", "routes[1].shadow"],
    ]
    assert "did you mean 'workers'?" in lines[0]


def test_a_file_that_is_no_yaml_is_told_with_its_place(tmp_path: Path) -> None:
    path = written(tmp_path, "routes:\n  - {name: a\n")
    done = attempt(path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{path}:3:1: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_file_that_is_not_there_is_told_by_its_name(tmp_path: Path) -> None:
    done = attempt(tmp_path / "nowhere.yaml")
    assert done.returncode == 2
    assert "nowhere.yaml" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("key", ["listen", "admin"])
def test_a_port_in_use_is_told_in_one_line(tmp_path: Path, servers: Servers, key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        value = address if key == "listen" else {"listen": address}
        done = attempt(written(tmp_path, document(servers[:1], **{key: value})))
    assert done.returncode == 1
    assert done.stderr == f"pointsman: cannot listen on {address}: Address already in use\n"


def test_a_state_store_that_cannot_be_opened_is_told_in_one_line(
    tmp_path: Path, servers: Servers
) -> None:
    (tmp_path / "file").touch()
    state = f"sqlite://{tmp_path}/file/state.db"
    done = attempt(written(tmp_path, document(servers, state=state, routes=[bandit()])))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("pointsman: ")
    assert f"{tmp_path}/file" in line


def test_a_state_store_that_no_route_needs_is_not_opened(tmp_path: Path, servers: Servers) -> None:
    (tmp_path / "file").touch()
    with serving(tmp_path, document(servers, state=f"sqlite://{tmp_path}/file/s.db")) as router:
        router.stop()


def test_a_state_store_that_another_program_holds_is_told(tmp_path: Path, servers: Servers) -> None:
    config = document(servers, state=f"sqlite://{tmp_path}/state.db", routes=[bandit()])
    with serving(tmp_path, config) as router:
        (tmp_path / "second").mkdir()
        done = attempt(written(tmp_path / "second", config))
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "state.db" in line
        router.stop()


def test_workers_that_cannot_start_stop_the_program_with_the_reason(
    tmp_path: Path, servers: Servers
) -> None:
    """An installation whose interpreter ends at once when it is to run a worker."""
    broken = 'import os, sys\nif "router.data" in sys.orig_argv:\n    os._exit(3)\n'
    (tmp_path / "sitecustomize.py").write_text(broken)
    done = attempt(written(tmp_path, document(servers)), PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.endswith("pointsman: worker 0 exited with status 3 before it was ready\n")
    assert "Traceback" not in done.stderr
    assert '"ready"' not in done.stderr


def test_the_command_line_tells_readiness_by_its_exit_status(
    tmp_path: Path, servers: Servers
) -> None:
    def ask(admin: str) -> "subprocess.CompletedProcess[bytes]":
        command = [sys.executable, "-m", "router", "status", "--quiet", "--admin", admin]
        return subprocess.run(command, capture_output=True, timeout=DEADLINE_S, check=False)

    with serving(tmp_path, document(servers, pre_stop="60s")) as router:
        ready = ask(router.admin)
        router.process.terminate()
        poll(lambda: router.events("stopping"), "stopping")
        draining = ask(router.admin)
    gone = ask(router.admin)
    assert [done.returncode for done in (ready, draining, gone)] == [0, 1, 1]
    assert {done.stdout + done.stderr for done in (ready, draining, gone)} == {b""}


def test_a_stop_signal_while_starting_ends_it_cleanly(tmp_path: Path, servers: Servers) -> None:
    router = Router(tmp_path, document(servers))
    try:
        pids = poll(router.spawned, "spawned")
        router.process.terminate()
        assert router.wait() == 0
        assert not any(is_alive(pid) for pid in pids)
        assert "Traceback" not in router.log.read_text()
    finally:
        router.kill()
