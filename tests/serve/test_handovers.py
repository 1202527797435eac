"""Workers, control and whole programs replaced under load: nobody who was connected notices."""

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.serve.harness import (
    DEADLINE_S,
    Router,
    call,
    document,
    is_alive,
    kill,
    poll,
    read_answer,
    serving,
    total,
)
from tests.serve.newcomers import Newcomers
from tests.serve.origins import Servers
from tests.serve.traffic import Steady

pytestmark = pytest.mark.process

TOKEN = "a-token-for-the-tests"


@contextmanager
def load(router: Router) -> Iterator[tuple[Steady, Newcomers]]:
    """Kept and new connections; at the end no request of either may have failed."""
    with Steady(router.listen) as steady, Newcomers(router.listen) as newcomers:
        yield steady, newcomers
    assert steady.failed == []
    assert newcomers.failed == []
    assert newcomers.refused == 0


def has_restarted(router: Router) -> bool:
    assert router.events("restart_refused") == []
    return bool(router.events("restarted"))


def restart(router: Router, token: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "router", "restart", "--admin", router.admin]
    env = {**os.environ, "POINTSMAN_ADMIN_TOKEN": token}
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


# the workers


@pytest.mark.parametrize("by", ["signal", "command"])
def test_a_restart_replaces_every_worker_and_no_request_fails(
    tmp_path: Path, servers: Servers, by: str
) -> None:
    config = document(servers, workers=2) | {"admin": {"listen": "127.0.0.1:0", "token": TOKEN}}
    with serving(tmp_path, config) as router:
        before = router.worker_pids()
        with load(router) as (steady, newcomers):
            if by == "signal":
                router.signal(signal.SIGUSR2)
            else:
                done = restart(router, TOKEN)
                assert (done.returncode, done.stdout) == (0, "2 workers are new\n"), done.stderr
            poll(lambda: has_restarted(router), "restarted")
            poll(lambda: not any(map(is_alive, before)), "left")
            steady.more(200)
            newcomers.wait(200)
        assert len(router.worker_pids()) == 2
        assert total(router.metrics(), "pointsman_worker_deaths_total") == 0
        answered = len(steady.answered) + newcomers.answered
        counted = total(router.metrics(), "pointsman_requests_total", route="plain")
        assert counted == answered
        router.stop()


def test_a_restart_waits_for_what_is_in_flight(tmp_path: Path, servers: Servers) -> None:
    v1, _ = servers
    with serving(tmp_path, document(servers)) as router, ThreadPoolExecutor(10) as pool:
        (old,) = router.worker_pids()
        held = [pool.submit(call, router.listen, "GET", "/plain/held") for _ in range(10)]
        poll(lambda: len(v1.served) == 10, "in flight")
        router.signal(signal.SIGUSR2)
        poll(lambda: has_restarted(router), "restarted")
        workers = {w["pid"]: w["state"] for w in router.status()["workers"]}
        assert workers[old] == "draining"
        assert sorted(workers.values()) == ["draining", "serving"]
        assert call(router.listen, "GET", "/plain/x").status == 200
        assert restart(router, "").returncode == 1  # one at a time
        assert len(router.events("restart_refused")) == 1
        v1.open_gate()
        assert [(f.result().status, f.result().body) for f in held] == [(200, b"v1")] * 10
        poll(lambda: not is_alive(old), "left")
        router.stop()


def test_a_restart_needs_the_token(tmp_path: Path, servers: Servers) -> None:
    config = document(servers) | {"admin": {"listen": "127.0.0.1:0", "token": TOKEN}}
    with serving(tmp_path, config) as router:
        before = router.worker_pids()
        done = restart(router, "not-the-token-of-this-one")
        assert (done.returncode, done.stdout) == (1, "")
        assert call(router.admin, "POST", "/restart").status == 401
        assert router.worker_pids() == before


def test_a_worker_that_hangs_is_killed_and_its_queue_is_served(
    tmp_path: Path, servers: Servers
) -> None:
    config = document(servers, workers=1, hang_timeout="2s")
    with serving(tmp_path, config) as router, ThreadPoolExecutor(5) as pool:
        (hung,) = router.worker_pids()
        os.kill(hung, signal.SIGSTOP)
        waiting = [pool.submit(call, router.listen, "GET", "/plain/x") for _ in range(5)]
        assert [future.result().status for future in waiting] == [200] * 5
        (line,) = router.events("worker_hung")
        assert (line["pid"], line["silent_s"] >= 2) == (hung, True)
        assert total(router.metrics(), "pointsman_worker_deaths_total", reason="hung") == 1
        router.stop()


# control


def test_without_control_workers_serve_on_until_a_new_one_is_ready(
    tmp_path: Path, servers: Servers
) -> None:
    config = document(servers, workers=2, orphan_timeout="10m")
    with serving(tmp_path, config) as router:
        orphans = router.worker_pids()
        (tmp_path / "next").mkdir()
        addresses = {"listen": router.listen, "admin": {"listen": router.admin}}
        try:
            with load(router) as (steady, newcomers):
                router.process.kill()
                router.process.wait(DEADLINE_S)
                steady.more()
                newcomers.wait()
                with serving(tmp_path / "next", config | addresses) as successor:
                    assert successor.events("ready")[0]["taken_over"] == 2
                    poll(lambda: not any(map(is_alive, orphans)), "left")
                    steady.more()
                    newcomers.wait()
                    assert {w["state"] for w in successor.status()["workers"]} == {"serving"}
                    steady.end()
                    newcomers.end()
                    successor.stop()
            assert len(router.events("successor_ready")) == 2
        finally:
            kill(orphans)


def _is_last(connection: http.client.HTTPConnection) -> bool:
    """Ask once more; whether the answer says that the connection ends."""
    connection.request("GET", "/plain/x")
    answer = read_answer(connection.getresponse())
    assert answer.status == 200
    return answer.headers.get("connection") == "close"


def test_orphans_leave_after_their_time_and_reset_nobody(tmp_path: Path, servers: Servers) -> None:
    config = document(servers, workers=2, orphan_timeout="300ms")
    with serving(tmp_path, config) as router:
        orphans = router.worker_pids()
        try:
            with Newcomers(router.listen, clients=8) as newcomers:
                router.process.kill()
                router.process.wait(DEADLINE_S)
                poll(lambda: not any(map(is_alive, orphans)), "left")
                poll(lambda: newcomers.refused > 10, "refused")
            assert newcomers.failed == []
        finally:
            kill(orphans)


# the program


def test_a_stop_resets_nobody_who_came_in_time(tmp_path: Path, servers: Servers) -> None:
    with serving(tmp_path, document(servers, workers=2)) as router:
        with Newcomers(router.listen, clients=16) as newcomers:
            router.stop()
            poll(lambda: newcomers.refused > 10, "refused")
        assert newcomers.failed == []
        assert router.events("stopped")[0]["cut"] == 0
        assert router.log.read_text().rstrip().split("\n")[-1].count('"stopped"') == 1


def test_an_upgrade_beside_the_running_program_loses_nothing(
    tmp_path: Path, servers: Servers
) -> None:
    """The recipe in docs/operations.md, there and back again."""
    config = document(servers, workers=2)
    (tmp_path / "new").mkdir()
    (tmp_path / "back").mkdir()
    # admin on another address (port 0), the listener on the same
    with (
        serving(tmp_path, config) as old,
        load(old) as (steady, newcomers),
        serving(tmp_path / "new", config | {"listen": old.listen}) as new,
    ):
        assert new.events("ready")[0]["taken_over"] == 2
        old.stop()
        steady.more()
        newcomers.wait()
        with serving(tmp_path / "back", config | {"listen": old.listen}) as back:
            new.stop()
            steady.more()
            newcomers.wait()
            steady.end()
            newcomers.end()
            back.stop()


def test_a_new_program_that_is_given_up_leaves_the_running_one_as_it_was(
    tmp_path: Path, servers: Servers
) -> None:
    config = document(servers, workers=2)
    (tmp_path / "new").mkdir()
    with serving(tmp_path, config) as old:
        with load(old) as (steady, newcomers):
            with serving(tmp_path / "new", config | {"listen": old.listen}) as new:
                new.stop()
            steady.more()
            newcomers.wait()
        with Newcomers(old.listen) as last:  # alone again, it empties its queues at the end
            old.stop()
        assert last.failed == []


def test_a_kept_connection_that_idles_is_not_closed_by_an_upgrade(
    tmp_path: Path, servers: Servers
) -> None:
    config = document(servers)
    (tmp_path / "new").mkdir()
    with serving(tmp_path, config) as old:
        idle = http.client.HTTPConnection(old.listen, timeout=DEADLINE_S)
        idle.request("GET", "/plain/x")
        assert read_answer(idle.getresponse()).status == 200
        with serving(tmp_path / "new", config | {"listen": old.listen}) as new:
            old.signal(signal.SIGTERM)
            poll(lambda: old.events("stopping"), "stopping")
            poll(lambda: old.status()["phase"] == "draining", "draining")
            assert call(new.listen, "GET", "/plain/x").status == 200
            poll(lambda: _is_last(idle), "told that it drains")
            idle.close()
            assert old.wait() == 0
            new.stop()
