"""Processes of the router die again and again under load."""

import os
import signal
from pathlib import Path

import pytest

from benchmarks.failover import load
from tests.faults.load import delivered_once, stage
from tests.serve.harness import document, poll, serving

pytestmark = pytest.mark.process

CONNECTIONS = 16


def test_workers_killed_again_and_again_fail_no_more_than_what_was_in_flight_on_them(
    tmp_path: Path,
) -> None:
    with stage(2) as it:
        base = document([("models", "")], routes=[{"name": "all", "backend": "models"}], workers=2)
        config = base | {"backends": {"models": it.backend()}}
        with serving(tmp_path, config) as router:
            before = router.metrics()["pointsman_worker_restarts_total"]
            with it.load(router.listen, connections=CONNECTIONS) as traffic:
                kills = 4
                for number in range(kills):
                    victim = router.worker_pids()[number % 2]
                    seen = len(traffic.bad())
                    os.kill(victim, signal.SIGKILL)
                    poll(lambda pid=victim: pid not in router.worker_pids(), "noticed")
                    poll(lambda: len(router.worker_pids()) == 2, "replaced")
                    traffic.more(200)
                    assert len(traffic.bad()) - seen <= CONNECTIONS
            kinds = delivered_once(it, traffic)
            assert kinds[load.REFUSED] == 0
            assert router.metrics()["pointsman_worker_restarts_total"] - before == kills
