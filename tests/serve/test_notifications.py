"""Whoever wants to know is told what becomes of a rollout, by the whole program."""

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.serve.harness import canary, document, poll, serving, total
from tests.serve.origins import Servers

pytestmark = pytest.mark.process

SECRET = "0123456789abcdef"


class Ear:
    """A server that keeps what is posted to it, and answers `answer`."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, bytes]] = []
        """(path, signature, body)."""
        self.answer = b""
        ear = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                ear.heard.append((self.path, self.headers["x-pointsman-signature"] or "", body))
                self.send_response(200)
                self.send_header("content-length", str(len(ear.answer)))
                self.end_headers()
                self.wfile.write(ear.answer)

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def at(self, path: str) -> list[Any]:
        return [json.loads(body) for where, _, body in self.heard if where == path]


@pytest.fixture
def ear() -> Iterator[Ear]:
    ear = Ear()
    thread = threading.Thread(target=ear.server.serve_forever, args=(0.02,))
    thread.start()
    yield ear
    ear.server.shutdown()
    ear.server.server_close()
    thread.join()


def ramp(**guard: Any) -> dict[str, Any]:
    """A route whose canary has one short step."""
    route = canary("50%")
    policy = {**route["policy"], "steps": [{"weight": "50%", "hold": "1s"}], **guard}
    del policy["weight"]
    return {**route, "policy": policy}


def test_slack_a_pager_and_a_webhook_are_told_of_a_promotion_in_order(
    tmp_path: Path, servers: Servers, ear: Ear
) -> None:
    pager = {"routing_key": "SECRET-KEY", "url": f"{ear.url}/pager"}
    notify = [
        {"slack": f"{ear.url}/slack"},
        {"pagerduty": pager},
        {
            "webhook": f"{ear.url}/hook",
            "secret": SECRET,
            "events": ["started", "step", "promoted"],
        },
    ]
    config = document(servers, routes=[ramp()], notify=notify)
    with serving(tmp_path, config) as router:
        poll(lambda: len(ear.at("/hook")) == 3, "told")
        assert [event["kind"] for event in ear.at("/hook")] == ["started", "step", "promoted"]
        assert {event["route"] for event in ear.at("/hook")} == {"canary"}
        assert ear.at("/hook")[2]["after"]["weights"] == {"v1": 0.0, "v2": 1.0}
        poll(lambda: len(ear.at("/slack")) == 2 and len(ear.at("/pager")) == 2, "told")
        assert ear.at("/slack")[1]["text"].startswith("*canary* promoted: v2 has all traffic")
        assert [event["event_action"] for event in ear.at("/pager")] == ["resolve"] * 2
        poll(
            lambda: total(router.metrics(), "pointsman_notifications_total", outcome="sent") == 7,
            "counted",
        )
        assert "SECRET-KEY" not in router.log.read_text()
    for path, signature, body in ear.heard:
        if path == "/hook":
            stamp = signature.partition(",")[0].removeprefix("t=")
            signed = hmac.new(SECRET.encode(), f"{stamp}.".encode() + body, hashlib.sha256)
            assert signature == f"t={stamp},v1={signed.hexdigest()}"


def test_a_gate_that_says_fail_rolls_back_and_the_pager_rings(
    tmp_path: Path, servers: Servers, ear: Ear
) -> None:
    ear.answer = json.dumps({"outcome": "fail", "reason": "labels are wrong"}).encode()
    gate = {"name": "labels", "webhook": {"url": f"{ear.url}/gate"}, "interval": "1s"}
    guard = {"max_error_rate": None, "p95": None, "burst": None, "gates": [gate]}
    notify = [{"pagerduty": {"routing_key": "key", "url": f"{ear.url}/pager"}}]
    config = document(servers, routes=[ramp(guard=guard)], notify=notify)
    with serving(tmp_path, config) as router:
        poll(lambda: len(ear.at("/pager")) == 2, "told")
        assert router.weights("canary") == {"v1": 1.0, "v2": 0.0}
        [_, alert] = ear.at("/pager")
        assert alert["event_action"] == "trigger"
        assert "gate labels says fail: labels are wrong" in alert["payload"]["summary"]
        asked = ear.at("/gate")
        assert (asked[0]["route"], asked[0]["new"], asked[0]["guard"]) == ("canary", "v2", "guard")
        assert router.events("gate")[0]["outcome"] == "fail"


def test_a_reload_tells_the_new_targets(tmp_path: Path, servers: Servers, ear: Ear) -> None:
    config = document(servers)
    with serving(tmp_path, config) as router:
        notify = [{"webhook": f"{ear.url}/hook"}]
        router.write_and_wait({**config, "routes": [ramp()], "notify": notify})
        poll(lambda: len(ear.at("/hook")) == 2, "told")
        assert [event["kind"] for event in ear.at("/hook")] == ["started", "promoted"]
