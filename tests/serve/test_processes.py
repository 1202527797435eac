"""Deaths and endings: what becomes of requests when a process dies or the program stops."""

import http.client
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.serve.harness import (
    DEADLINE_S,
    Answer,
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
from tests.serve.origins import Servers
from tests.serve.traffic import Sent, Steady

pytestmark = pytest.mark.process


def worker_of(item: Sent) -> str:
    """The worker that answered: the first half of an id that the router made."""
    return item.answer.headers["x-request-id"][:16]


def test_a_killed_worker_fails_no_more_than_the_requests_in_flight_on_it(
    tmp_path: Path, servers: Servers
) -> None:
    with serving(tmp_path, document(servers, workers=2)) as router:
        with Steady(router.listen, clients=8, headers=lambda client, number: {}) as steady:
            before = {item.client: worker_of(item) for item in steady.more(200)}
            seen = router.metrics()
            victim = router.worker_pids()[0]
            os.kill(victim, signal.SIGKILL)
            poll(lambda: victim not in router.worker_pids(), "noticed")
            poll(lambda: len(router.worker_pids()) == 2, "replaced")
            after = {worker_of(item) for item in steady.more(400)}
            now = router.metrics()
        lost = set(before.values()) - after
        assert len(lost) <= 1
        on_victim = {client for client, worker in before.items() if worker in lost}
        assert {failure.client for failure in steady.failed} <= on_victim
        assert len(steady.failed) <= len(on_victim)
        assert now["pointsman_worker_restarts_total"] == 1
        (death,) = router.events("worker_died")
        assert death["pid"] == victim
        assert death["reason"] == "was killed by SIGKILL, perhaps out of memory"
        assert total(now, "pointsman_worker_deaths_total", reason="signal") == 1
        shrunk = {
            series: (value, now.get(series))
            for series, value in seen.items()
            if "_total" in series and now.get(series, -1) < value
        }
        assert not shrunk


def test_counters_never_go_down_while_workers_die(tmp_path: Path, servers: Servers) -> None:
    config = document(servers, workers=2)
    with serving(tmp_path, config) as router, Steady(router.listen) as steady:
        earlier = router.metrics()
        for _ in range(2):
            victim = router.worker_pids()[-1]
            os.kill(victim, signal.SIGKILL)

            def replaced(victim: int = victim) -> bool:
                nonlocal earlier
                now = router.metrics()
                for series, value in earlier.items():
                    if "_total" in series or "_bucket" in series or "_count" in series:
                        assert now.get(series, -1) >= value, series
                earlier = now
                pids = router.worker_pids()
                return len(pids) == 2 and victim not in pids

            poll(replaced, "replaced")
            steady.more(50)


def streamed(address: str, events: int) -> bytes:
    """The whole of a stream; raises when it is cut."""
    connection = http.client.HTTPConnection(address, timeout=DEADLINE_S)
    try:
        connection.request("GET", f"/plain/stream?events={events}")
        return connection.getresponse().read()
    finally:
        connection.close()


def test_a_stop_cuts_nothing_that_ends_in_time(tmp_path: Path, servers: Servers) -> None:
    v1, _ = servers
    config = document(servers, workers=2, pre_stop="3s")
    with serving(tmp_path, config) as router, ThreadPoolExecutor(25) as pool:
        held = [pool.submit(call, router.listen, "GET", "/plain/held") for _ in range(20)]
        streams = [pool.submit(streamed, router.listen, 3) for _ in range(5)]
        poll(lambda: len(v1.served) == 25, "in flight")
        router.signal(signal.SIGTERM)
        poll(lambda: call(router.listen, "GET", "/-/readyz").status == 503, "not ready")
        assert call(router.admin, "GET", "/readyz").status == 503
        assert call(router.listen, "GET", "/plain/x").status == 200  # pre_stop: still taken
        poll(lambda: _is_refused(router), "closed")
        assert router.process.poll() is None
        v1.open_gate()
        assert [(f.result().status, f.result().body) for f in held] == [(200, b"v1")] * 20
        whole = b"".join(b"data: v1 %d\n\n" % number for number in range(3))
        assert [stream.result() for stream in streams] == [whole] * 5
        assert router.wait() == 0
        assert router.events("stopped")[0]["cut"] == 0


def _is_refused(router: Router) -> bool:
    try:
        call(router.listen, "GET", "/-/readyz")
    except OSError:
        return True
    return False


def test_a_stream_longer_than_the_drain_is_cut_at_the_deadline(
    tmp_path: Path, servers: Servers
) -> None:
    v1, _ = servers
    with serving(tmp_path, document(servers, drain_timeout="300ms")) as router:
        connection = http.client.HTTPConnection(router.listen, timeout=DEADLINE_S)
        connection.request("GET", "/plain/stream?events=1000")
        v1.let()
        response = connection.getresponse()
        assert response.readline() == b"data: v1 0\n"
        router.signal(signal.SIGTERM)
        with pytest.raises((ConnectionError, http.client.IncompleteRead)):
            response.read()
        connection.close()
        assert router.wait() == 0
        assert router.events("stopped")[0]["cut"] == 1


def test_under_traffic_a_stop_is_clean(tmp_path: Path, servers: Servers) -> None:
    """A kept connection may be closed under a client's hands; an answer that began is whole."""
    config = document(servers, workers=2)
    with serving(tmp_path, config) as router, Steady(router.listen) as steady:
        pids = router.worker_pids()
        router.stop()
        assert not any(is_alive(pid) for pid in pids)
    cut = [f for f in steady.failed if "IncompleteRead" in f.reason or "Answer(" in f.reason]
    assert not cut


def test_without_control_workers_serve_on_and_refuse_what_control_alone_can_do(
    tmp_path: Path, servers: Servers
) -> None:
    with serving(tmp_path, document(servers, workers=2)) as router:
        orphans = router.worker_pids()
        poll(lambda: len(router.spawned()) == 3, "two workers and a spare")
        (spare,) = set(router.spawned()) - set(orphans)
        try:
            with Steady(router.listen) as steady:
                router.process.kill()
                router.process.wait(DEADLINE_S)
                steady.more(300)
                answer = call(router.listen, "POST", "/-/feedback", {"receipt": "x", "reward": 1})
                assert answer.status == 503
                assert answer.json()["type"].endswith(":control-away")
            assert not steady.failed
            assert all(is_alive(pid) for pid in orphans)
            poll(lambda: not is_alive(spare), "left")
        finally:
            kill(orphans)


def test_a_stopped_worker_does_not_hold_up_a_reload(tmp_path: Path, servers: Servers) -> None:
    config = document(servers, workers=2)
    with serving(tmp_path, config) as router:
        stopped, healthy = router.worker_pids()
        os.kill(stopped, signal.SIGSTOP)
        router.write({**config, "drain_timeout": "3s"})
        poll(lambda: router.events("reloaded"), "reloaded")
        generations = {w["pid"]: w["generation"] for w in router.status()["workers"]}
        assert generations[healthy] > generations[stopped]
        os.kill(stopped, signal.SIGCONT)
        poll(lambda: len({w["generation"] for w in router.status()["workers"]}) == 1, "caught up")
        assert router.events("worker_died") == []
        router.stop()


@pytest.mark.parametrize("has_reloaded", [False, True])
def test_a_reload_at_the_moment_of_a_stop_says_nothing_after_the_end(
    tmp_path: Path, servers: Servers, has_reloaded: bool
) -> None:
    config = document(servers)
    with serving(tmp_path, config) as router:
        router.write({**config, "drain_timeout": "3s"})
        router.signal(signal.SIGHUP)
        if has_reloaded:
            poll(lambda: router.events("reloaded"), "reloaded")
        router.stop()
        last = json.loads(router.log.read_text().rstrip().split("\n")[-1])
        assert last["event"] == "stopped"


def test_an_answer_says_that_its_connection_ends_while_draining(
    tmp_path: Path, servers: Servers
) -> None:
    v1, _ = servers
    with serving(tmp_path, document(servers)) as router, ThreadPoolExecutor(1) as pool:
        held = pool.submit(_kept, router.listen)
        poll(lambda: v1.served, "in flight")
        router.signal(signal.SIGTERM)
        poll(lambda: router.events("stopping"), "stopping")
        poll(lambda: _is_refused(router), "closed")
        v1.let()
        assert held.result().headers["connection"] == "close"
        assert router.wait() == 0


def _kept(address: str) -> Answer:
    connection = http.client.HTTPConnection(address, timeout=DEADLINE_S)
    try:
        connection.request("GET", "/plain/held")
        return read_answer(connection.getresponse())
    finally:
        connection.close()
