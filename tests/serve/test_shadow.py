"""Shadows end to end: whatever becomes of the copies, clients notice nothing."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.serve.harness import Router, call, document, poll, serving, total
from tests.serve.origins import Servers
from tests.serve.traffic import Steady

pytestmark = pytest.mark.process

COPIES = "pointsman_shadow_requests_total"


def shadowed(servers: Servers, **shadow: Any) -> dict[str, Any]:
    """v1 answers, v2 watches."""
    route = {
        "name": "plain",
        "match": {"path": "/plain/"},
        "backend": "v1",
        "shadow": [{"backend": "v2", "sample": "100%", **shadow}],
    }
    return document(servers, routes=[route])


def outcomes(router: Router, copies: int) -> dict[str, float]:
    """Outcome -> copies, once so many are accounted for."""

    def look() -> dict[str, float]:
        metrics = router.metrics()
        if total(metrics, COPIES) < copies:
            return {}
        return {s.partition('outcome="')[2][:-len('",route="plain"}')]: n
                for s, n in metrics.items() if s.startswith(COPIES)}  # fmt: skip

    return poll(look, "accounted for")


def test_a_shadow_gets_a_marked_copy_of_every_request(tmp_path: Path, servers: Servers) -> None:
    v1, v2 = servers
    with serving(tmp_path, shadowed(servers)) as router:
        for number in range(20):
            body = b"x" * number
            answer = call(router.listen, "POST", "/plain/echo", body)
            assert (answer.status, answer.body) == (200, body)
        assert outcomes(router, 20) == {"answered": 20}
        assert sorted(item.body_bytes for item in v2.served) == list(range(20))
        assert all(item.headers["x-router-shadow"] == "true" for item in v2.served)
        assert not any("x-router-shadow" in item.headers for item in v1.served)
        assert {i.headers["x-request-id"] for i in v1.served} == {
            i.headers["x-request-id"] for i in v2.served
        }


def test_a_shadow_that_hangs_costs_clients_nothing(tmp_path: Path, servers: Servers) -> None:
    v1, v2 = servers
    v1.open_gate()
    config = shadowed(servers, in_flight=3, timeout="500ms")
    with serving(tmp_path, config) as router:
        with Steady(router.listen, "/plain/held") as steady:  # v2 holds its copies
            poll(lambda: router.metrics()["pointsman_shadow_in_flight"] == 3, "full")
            began_s = time.monotonic()
            steady.more(200)
            assert time.monotonic() - began_s < 200 * 0.5 / 3  # they did not wait for copies
        assert not steady.failed
        counted = outcomes(router, steady.sent)
        assert set(counted) == {"timeout", "dropped_in_flight"}
        assert sum(counted.values()) == steady.sent
        assert 3 <= len(v2.served) <= counted["timeout"]
        assert router.metrics()["pointsman_shadow_in_flight"] == 0


def test_a_shadow_that_is_down_costs_clients_nothing(tmp_path: Path, servers: Servers) -> None:
    config = shadowed(servers)
    config["backends"]["v2"] = {"endpoints": ["http://127.0.0.1:1"]}
    with serving(tmp_path, config) as router:
        assert {call(router.listen, "GET", "/plain/x").status for _ in range(30)} == {200}
        counted = outcomes(router, 30)
        assert set(counted) == {"failed", "dropped_failing"}
        assert 5 <= counted["failed"] < 30


def test_a_body_too_large_to_copy_is_relayed_and_counted(tmp_path: Path, servers: Servers) -> None:
    _, v2 = servers
    with serving(tmp_path, shadowed(servers, max_body="1KiB")) as router:
        body = b"x" * 5000
        assert call(router.listen, "POST", "/plain/echo", body).body == body
        assert outcomes(router, 1) == {"skipped_size": 1}
        assert not v2.served
