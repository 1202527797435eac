"""Whole programs: control with real workers, started as an operator does."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import orjson
import pytest

from tests.control.support import BANDIT, PLAIN, document

pytestmark = pytest.mark.process
DEADLINE_S = 20.0


class Origin(BaseHTTPRequestHandler):
    """A model server: answers everything; slowly below /plain/slow."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/plain/slow"):
            time.sleep(0.5)
        body = b"answer"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def poll(condition: Callable[[], Any]) -> Any:
    """The first true result of `condition`; fails at the deadline."""
    end_s = time.monotonic() + DEADLINE_S
    while not (result := condition()):
        assert time.monotonic() < end_s, "still not"
        time.sleep(0.02)
    return result


def call(
    address: str,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(address, timeout=DEADLINE_S)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    return response.status, answer, {k.lower(): v for k, v in response.getheaders()}


class Router:
    """A running `router serve`."""

    def __init__(self, directory: Path, origin: str, **changes: Any) -> None:
        self.path = directory / "router.yaml"
        self.log = directory / "log"
        self.changes: dict[str, Any] = {
            "logging": {"format": "json"},
            "state": f"sqlite://{directory}/state.db",
            "drain_timeout": "5s",
            "routes": [PLAIN, BANDIT],
            "backends": {"v1": {"endpoints": [origin]}, "v2": {"endpoints": [origin]}},
        } | changes
        self.write()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "router", "serve", str(self.path)], stderr=log
            )

    def write(self, **changes: Any) -> None:
        """Replace the config file at once, as editors do."""
        replacement = self.path.with_suffix(".new")
        replacement.write_bytes(orjson.dumps(document(**(self.changes | changes))))
        replacement.rename(self.path)

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def ready(self) -> "Router":
        def look() -> list[dict[str, Any]]:
            assert self.process.poll() is None, self.log.read_text()
            return self.events("ready")

        line = poll(look)[0]
        self.listen, self.admin = line["listen"], line["admin"]
        return self

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(call(self.admin, "GET", "/status")[1])
        return document

    def metric(self, line: str) -> bool:
        return f"\n{line}\n" in call(self.admin, "GET", "/metrics")[1].decode()

    def worker_pids(self) -> list[int]:
        return [worker["pid"] for worker in self.status()["workers"]]

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)


@contextmanager
def running(directory: Path, origin: str, **changes: Any) -> Iterator[Router]:
    router = Router(directory, origin, **changes)
    try:
        yield router.ready()
    finally:
        router.process.kill()
        router.process.wait(DEADLINE_S)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_requests_are_answered_and_counted_exactly(tmp_path: Path, origin: str) -> None:
    with running(tmp_path, origin) as router:
        assert call(router.admin, "GET", "/readyz")[0] == 200
        for _ in range(7):
            assert call(router.listen, "GET", "/plain/x")[:2] == (200, b"answer")
        variant = router.status()["routes"][0]["variants"][0]
        assert (variant["requests"], variant["codes"], variant["share"]) == (7, {"2xx": 7}, 1.0)
        assert router.metric('pointsman_requests_total{code="2xx",route="plain",variant="v1"} 7.0')
        pids = router.worker_pids()
        assert router.stop() == 0
        assert not any(is_alive(pid) for pid in pids)


def test_rewards_come_back_over_the_listener_and_outlive_a_restart(
    tmp_path: Path, origin: str
) -> None:
    with running(tmp_path, origin) as router:
        receipt = call(router.listen, "GET", "/learner/x")[2]["x-router-receipt"]
        body = json.dumps({"receipt": receipt, "reward": 1}).encode()
        posted = [call(router.listen, "POST", "/-/feedback", body) for _ in range(2)]
        assert [status for status, _, _ in posted] == [200, 409]
        assert call(router.admin, "POST", "/feedback", body)[0] == 409
        assert router.metric('pointsman_feedback_total{result="accepted",route="learner"} 1.0')
        router.process.kill()
        router.process.wait(DEADLINE_S)
    with running(tmp_path, origin) as router:
        learned = router.status()["routes"][1]["learned"]
        assert sum(arm["rewards"] for arm in learned.values()) == 1
        assert call(router.listen, "POST", "/-/feedback", body)[0] == 409
        assert router.stop() == 0


def test_a_new_file_is_taken_and_a_bad_one_is_not(tmp_path: Path, origin: str) -> None:
    with running(tmp_path, origin) as router:
        assert call(router.listen, "GET", "/new/")[0] == 404
        router.write(routes=[PLAIN, {**PLAIN, "name": "new", "match": {"path": "/new/"}}])
        poll(lambda: router.status()["generation"] == 2)
        assert call(router.listen, "GET", "/new/")[0] == 200
        router.path.write_text("routes: [")
        poll(lambda: router.events("reload_refused"))
        assert router.metric("pointsman_config_last_reload_success 0.0")
        assert router.status()["last_reload"]["errors"]
        assert call(router.admin, "POST", "/reload")[0] == 422
        assert call(router.listen, "GET", "/new/")[0] == 200
        router.write()
        router.process.send_signal(signal.SIGHUP)
        poll(lambda: router.status()["generation"] > 2)
        assert call(router.listen, "GET", "/new/")[0] == 404


def test_a_killed_worker_is_replaced(tmp_path: Path, origin: str) -> None:
    with running(tmp_path, origin, workers=1) as router:
        call(router.listen, "GET", "/plain/x")
        (pid,) = router.worker_pids()
        os.kill(pid, signal.SIGKILL)
        assert call(router.listen, "GET", "/plain/x")[0] == 200
        assert router.worker_pids() != [pid]
        (death,) = router.events("worker_died")
        assert (death["pid"], death["reason"]) == (
            pid,
            "was killed by SIGKILL, perhaps out of memory",
        )
        assert router.metric("pointsman_worker_restarts_total 1.0")


def test_a_request_in_flight_is_finished_before_the_program_ends(
    tmp_path: Path, origin: str
) -> None:
    with running(tmp_path, origin, workers=1) as router:
        connection = http.client.HTTPConnection(router.listen, timeout=DEADLINE_S)
        connection.request("GET", "/plain/slow")
        poll(lambda: router.metric("pointsman_requests_in_flight 1.0"))
        router.process.send_signal(signal.SIGTERM)
        poll(lambda: router.events("stopping"))
        assert call(router.admin, "GET", "/readyz")[0] == 503
        assert connection.getresponse().read() == b"answer"
        connection.close()
        assert router.process.wait(DEADLINE_S) == 0
        assert router.events("stopped")[0]["cut"] == 0


def test_a_second_signal_ends_everything_at_once(tmp_path: Path, origin: str) -> None:
    with running(tmp_path, origin, pre_stop="60s") as router:
        pids = router.worker_pids()
        router.process.send_signal(signal.SIGTERM)
        poll(lambda: router.events("stopping"))
        assert router.stop(signal.SIGINT) == 128 + signal.SIGINT
        poll(lambda: not any(is_alive(pid) for pid in pids))


def test_a_second_program_on_the_same_admin_address_is_refused(tmp_path: Path, origin: str) -> None:
    with running(tmp_path, origin) as router:
        (tmp_path / "second").mkdir()
        second = Router(tmp_path / "second", origin, admin={"listen": router.admin})
        assert second.process.wait(DEADLINE_S) == 1
        log = second.log.read_text()
        assert f"cannot listen on {router.admin}: Address already in use" in log
        assert "Traceback" not in log


def test_an_endpoint_that_fails_its_checks_gets_no_requests(tmp_path: Path, origin: str) -> None:
    check = {"path": "/", "interval": "100ms", "unhealthy_after": 1}
    backends = {
        "v1": {"endpoints": [origin, "http://127.0.0.1:1"], "health": check},
        "v2": {"endpoints": [origin]},
    }
    with running(tmp_path, origin, backends=backends) as router:
        poll(lambda: router.events("endpoint_down"))
        endpoints = router.status()["backends"]["v1"]["endpoints"]
        assert [endpoint["state"] for endpoint in endpoints] == ["up", "down"]
        assert endpoints[1]["reason"]
        assert [call(router.listen, "GET", "/plain/x")[0] for _ in range(20)] == [200] * 20
