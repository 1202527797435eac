"""What the router stands on fails: the disk below the state store, the clock, the names."""

import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.faults.load import Stage, accounted, stage
from tests.serve.harness import Answer, Router, bandit, call, document, poll, serving

pytestmark = pytest.mark.process

DAY_S = 86400
JUMPING_CLOCK = """\
import os, time
_true_time = time.time
def _time():
    return _true_time() + float(open({file!r}).read() or 0)
time.time = _time
"""
"""A `sitecustomize` module: wall-clock time, shifted by the number in a file."""


def learner(it: Stage, directory: Path, **changes: Any) -> dict[str, Any]:
    """Two endpoints as variants of a bandit that keeps its state on disk."""
    pairs = [
        (name, endpoint.url) for name, endpoint in zip(("v1", "v2"), it.endpoints, strict=True)
    ]
    state = f"sqlite://{directory}/state.db"
    return document(pairs, state=state, routes=[bandit()], workers=2, **changes)


def receipt(router: Router) -> str:
    answer = call(router.listen, "GET", "/learner/x")
    assert answer.status == 200
    return answer.headers["x-router-receipt"]


def reward(router: Router, token: str) -> Answer:
    return call(router.listen, "POST", "/-/feedback", {"receipt": token, "reward": 1})


@contextmanager
def full_disk(pid: int, size_bytes: int) -> Iterator[None]:
    """No file of that process may grow beyond `size_bytes`: a write past it fails."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def test_with_a_full_disk_rewards_are_refused_traffic_goes_on_and_then_rewards_count_again(
    tmp_path: Path,
) -> None:
    with stage(2) as it, serving(tmp_path, learner(it, tmp_path)) as router:
        assert reward(router, receipt(router)).status == 200
        before = router.metrics()
        written = max(path.stat().st_size for path in tmp_path.iterdir())
        with it.load(router.listen, path="/learner/x") as traffic:
            with full_disk(router.process.pid, written):
                tokens = [receipt(router) for _ in range(5)]
                for token in tokens:
                    answer = reward(router, token)
                    assert answer.status == 503, answer
                    assert answer.json()["type"].endswith(":state-unavailable")
                traffic.more()
                assert call(router.admin, "GET", "/status").status == 200
            for token in tokens:  # none was counted, so each still counts
                assert reward(router, token).json()["result"] == "accepted"
                assert reward(router, token).json()["result"] == "duplicate"
        assert not traffic.bad()
        assert router.worker_pids()
        counted = 'pointsman_feedback_total{result="accepted",route="learner"}'
        assert router.metrics()[counted] - before[counted] == len(tokens)


def test_when_the_clock_jumps_no_request_fails_and_rewards_of_after_the_jump_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offset = tmp_path / "offset"
    offset.write_text("0")
    (tmp_path / "sitecustomize.py").write_text(JUMPING_CLOCK.format(file=str(offset)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    with stage(2) as it, serving(tmp_path, learner(it, tmp_path)) as router:
        with it.load(router.listen, path="/learner/x") as traffic:
            early = receipt(router)
            for jump_s in (DAY_S, -DAY_S, 0):
                offset.write_text(str(jump_s))
                traffic.more(50)
                if jump_s == DAY_S:  # so the jump is seen
                    assert reward(router, early).json()["result"] == "late"
                # receipts are stamped with a time that is read once a second
                poll(lambda: reward(router, receipt(router)).json()["result"] == "accepted", "time")
                token = receipt(router)
                assert reward(router, token).json()["result"] == "accepted", jump_s
                assert reward(router, token).json()["result"] == "duplicate"
        assert not traffic.bad()
        assert not router.events("task_failed")
        assert {worker["state"] for worker in router.status()["workers"]} == {"serving"}
        assert router.metrics()["pointsman_worker_restarts_total"] == 0


def _in_namespace(directory: Path) -> list[str]:
    """What runs a command that knows the names of `hosts` in this directory and no others."""
    (directory / "nsswitch.conf").write_text("hosts: files\n")
    mounts = (f"mount --bind {directory}/{name} /etc/{name}" for name in ("hosts", "nsswitch.conf"))
    script = f'{" && ".join(mounts)} && exec "$0" "$@"'
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]


def _has_namespaces() -> bool:
    if shutil.which("unshare") is None:
        return False
    with TemporaryDirectory() as directory:
        (Path(directory) / "hosts").touch()
        command = [*_in_namespace(Path(directory)), "true"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _has_namespaces(), reason="this user may not bind-mount in a namespace")
def test_when_a_name_changes_traffic_moves_and_when_it_is_gone_the_last_address_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts, python = tmp_path / "hosts", tmp_path / "python"
    hosts.write_text("127.0.0.1 models.test\n")
    command = shlex.join([*_in_namespace(tmp_path), sys.executable])
    python.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr("tests.serve.harness.sys.executable", str(python))
    with stage(1) as it:
        it.add(it.endpoints[0].port, "127.0.0.2")
        backend = {"endpoints": [f"http://models.test:{it.endpoints[0].port}"], "resolve": "100ms"}
        base = document([("models", "")], routes=[{"name": "all", "backend": "models"}])
        with serving(tmp_path, base | {"backends": {"models": backend}}) as router:
            before = router.metrics()
            with it.load(router.listen) as traffic:
                assert {outcome.endpoint for outcome in traffic.more(50)} == {"a"}
                hosts.write_text("127.0.0.2 models.test\n")
                poll(lambda: {o.endpoint for o in traffic.more(50)} == {"b"}, "moved")
                hosts.write_text("127.0.0.2 models.test\n127.0.0.1 models.test\n")
                poll(lambda: {o.endpoint for o in traffic.more(50)} == {"a", "b"}, "on both")
                hosts.write_text("\n")
                poll(lambda: router.events("not_resolved"), "the name is gone")
                assert {outcome.endpoint for outcome in traffic.more(100)} == {"a", "b"}
            assert not traffic.bad()
            accounted(it, traffic, router, before)
