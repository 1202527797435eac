"""A lack of open files: who is connected notices nothing, who comes waits, operators are told."""

import selectors
import socket
from pathlib import Path

import pytest

from tests.serve.harness import DEADLINE_S, Router, call, document, poll, serving, total
from tests.serve.origins import Servers

pytestmark = pytest.mark.process

REQUEST = b"GET /plain/x HTTP/1.1\r\nhost: test\r\n\r\n"


def came(address: str, count: int) -> list[socket.socket]:
    """So many clients that have sent a request each."""
    host, _, port = address.partition(":")
    socks = [socket.create_connection((host, int(port)), DEADLINE_S) for _ in range(count)]
    for sock in socks:
        sock.sendall(REQUEST)
    return socks


def take_answers(waiting: set[socket.socket], timeout_s: float) -> set[socket.socket]:
    """Who got an answer that is a 200; it is read."""
    answered: set[socket.socket] = set()
    with selectors.DefaultSelector() as selector:
        for sock in waiting:
            selector.register(sock, selectors.EVENT_READ)
        for key, _ in selector.select(timeout_s):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            answer = sock.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 "), answer
            while not answer.endswith(b"\r\n\r\nv1"):
                answer += sock.recv(65536)
            answered.add(sock)
    return answered


def test_without_files_clients_wait_and_those_connected_are_served(
    tmp_path: Path, servers: Servers
) -> None:
    with serving(tmp_path, document(servers), open_files=128) as router:
        (bounded,) = router.events("connections_bounded")
        assert (bounded["open_files_allowed"], bounded["accept_pauses_at"]) == (128, 64)
        waiting = set(came(router.listen, 200))
        answered: set[socket.socket] = set()
        while len(answered) < 5 or not router.events("accept_paused"):
            answered |= take_answers(waiting - answered, 0.05)
        metrics = router.metrics()
        assert metrics["pointsman_accept_paused"] == 1
        assert metrics["pointsman_accept_paused_total"] == 1
        assert len(answered) < 64
        for sock in answered:  # they are served on
            sock.sendall(REQUEST)
        again = set(answered)
        while again:
            again -= take_answers(again, DEADLINE_S)
        waiting -= answered
        for sock in answered:
            sock.close()
        while waiting:  # as some leave, others are let in
            served = take_answers(waiting, DEADLINE_S)
            assert served
            waiting -= served
            for sock in served:
                sock.close()
        poll(lambda: router.metrics()["pointsman_accept_paused"] == 0, "resumed")
        metrics = router.metrics()
        assert metrics["pointsman_downstream_connections_accepted_total"] == 200
        codes = {"route": "plain"}
        asked = total(metrics, "pointsman_requests_total", **codes)
        assert asked == total(metrics, "pointsman_requests_total", **codes, code="2xx")
        assert total(metrics, "pointsman_worker_deaths_total") == 0
        assert call(router.listen, "GET", "/plain/x").status == 200
        router.stop()


def test_too_few_files_to_start_with_are_told(tmp_path: Path, servers: Servers) -> None:
    router = Router(tmp_path, document(servers, workers=2), open_files=14)
    assert router.wait() == 1
    log = router.log.read_text()
    assert "only 14 open files are allowed, expected at least 72 for 2 workers" in log
    assert "Traceback" not in log


def test_the_fewest_files_that_are_allowed_are_enough(tmp_path: Path, servers: Servers) -> None:
    with serving(tmp_path, document(servers, workers=2), open_files=72) as router:
        assert [call(router.listen, "GET", "/plain/x").status for _ in range(20)] == [200] * 20
        router.stop()
