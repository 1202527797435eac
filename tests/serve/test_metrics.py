"""Metrics end to end: every request a client sent is in exactly one count."""

import http.client
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.serve.harness import (
    DEADLINE_S,
    Router,
    bandit,
    call,
    canary,
    document,
    poll,
    serving,
    total,
)
from tests.serve.origins import Origin, Servers
from tests.serve.traffic import Steady

pytestmark = pytest.mark.process


def abandon(router: Router, v1: Origin) -> None:
    """Send a request, and leave before its answer."""
    before = len(v1.served)
    connection = http.client.HTTPConnection(router.listen, timeout=DEADLINE_S)
    connection.request("GET", "/plain/held")
    poll(lambda: len(v1.served) > before, "in flight")
    connection.close()


def garbage(router: Router) -> bytes:
    host, _, port = router.listen.rpartition(":")
    with socket.create_connection((host, int(port)), DEADLINE_S) as raw:
        raw.sendall(b"BROKEN\r\n\r\n")
        return raw.recv(65536)


def test_every_request_sent_is_counted_once(tmp_path: Path, servers: Servers) -> None:
    v1, _ = servers
    config = document(servers, workers=2)
    config["routes"] += [canary("30%"), bandit()]
    config["backends"]["dead"] = {"endpoints": ["http://127.0.0.1:1"]}
    config["routes"].append({"name": "dead", "match": {"path": "/dead/"}, "backend": "dead"})
    with serving(tmp_path, config) as router:
        with Steady(router.listen) as plain, Steady(router.listen, "/learner/x") as learner:
            router.write_and_wait(config | {"drain_timeout": "9s"})
            plain.more()
            learner.more()
        for user in range(30):
            call(router.listen, "GET", "/canary/x", headers={"x-user-id": str(user)})
        for code in (204, 302, 404, 503):
            assert call(router.listen, "GET", f"/plain/status?code={code}").status == code
        assert [call(router.listen, "GET", "/dead/x").status for _ in range(3)] == [502] * 3
        assert [call(router.listen, "GET", "/nowhere").status for _ in range(5)] == [404] * 5
        assert b" 400 " in garbage(router)
        for _ in range(4):
            abandon(router, v1)
        aborts = "pointsman_client_aborts_total"
        poll(lambda: total(router.metrics(), aborts) == 4, "aborted")

        metrics = router.metrics()
        name = "pointsman_requests_total"
        assert not plain.failed and not learner.failed
        sent = plain.sent + learner.sent + 30 + 4 + 3 + 5 + 1 + 4
        assert total(metrics, name) == sent
        assert total(metrics, "pointsman_request_duration_seconds_count") == sent
        assert total(metrics, "pointsman_request_duration_seconds_bucket", le="+Inf") == sent
        assert total(metrics, name, route="learner", code="2xx") == learner.sent
        assert total(metrics, name, route="plain", code="2xx") == plain.sent + 1
        assert total(metrics, name, route="plain", code="5xx") == 1
        assert total(metrics, name, code="abort") == 4
        assert total(metrics, name, route="") == 6
        assert total(metrics, "pointsman_refused_total") == 3 + 5 + 1
        assert total(metrics, "pointsman_refused_total", reason="no-route") == 5
        # what the servers saw: all but what the router refused, and the 503 once for each attempt
        again = total(metrics, "pointsman_retries_total", reason="503")
        assert again == 2
        assert sum(len(server.served) for server in servers) == sent - 9 + again
        assert metrics["pointsman_requests_in_flight"] == 0


def test_the_exposition_satisfies_promtool(tmp_path: Path, servers: Servers) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    config = document(servers)
    config["routes"] += [canary("30%"), bandit()]
    with serving(tmp_path, config) as router:
        call(router.listen, "GET", "/learner/x")
        call(router.listen, "POST", "/-/feedback", {"receipt": "x", "reward": 1})
        exposition = call(router.admin, "GET", "/metrics").body
    done = subprocess.run(
        [promtool, "check", "metrics"], input=exposition, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
