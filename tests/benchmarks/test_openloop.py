import itertools
import socket
import statistics
import threading
from collections.abc import Iterator

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.openloop import answer_length, measure, schedule

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_ERROR = b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno"
_LAST = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
_REQUESTS = {
    b"GET /ok HTTP/1.1\r\n\r\n": _OK,
    b"GET /error HTTP/1.1\r\n\r\n": _ERROR,
    b"GET /last HTTP/1.1\r\n\r\n": _LAST,
    b"GET /cut HTTP/1.1\r\n\r\n": _OK[:20],
}


@pytest.fixture
def origin_port() -> Iterator[int]:
    """A server that answers by `_REQUESTS`, and closes after a cut or last answer."""

    def serve(client: socket.socket) -> None:
        with client:
            while request := client.recv(4096):
                client.sendall(_REQUESTS[request])
                if _REQUESTS[request] not in (_OK, _ERROR):
                    return

    def accept(server: socket.socket) -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def test_every_request_of_the_schedule_is_sent_and_answered(origin_port: int) -> None:
    result = measure(origin_port, [b"GET /ok HTTP/1.1\r\n\r\n"], schedule(500, 0.2, seed=1), 2)
    assert result.requests == len(schedule(500, 0.2, seed=1))
    assert result.failed == 0
    assert 0 < result.p50_us <= result.p99_us <= result.p999_us <= result.max_us


@pytest.mark.parametrize(
    ("path", "failure"), [("error", "status 503"), ("cut", "closed before the answer was whole")]
)
def test_an_error_and_a_cut_answer_are_failures(origin_port: int, path: str, failure: str) -> None:
    requests = [b"GET /ok HTTP/1.1\r\n\r\n", f"GET /{path} HTTP/1.1\r\n\r\n".encode()]
    result = measure(origin_port, requests, [0.001 * i for i in range(20)], 2)
    assert (result.requests, result.failed) == (20, 10)
    assert result.failures == (failure,)


def test_a_connection_that_the_server_announces_to_close_is_replaced(origin_port: int) -> None:
    arrivals = [0.001 * i for i in range(20)]
    assert measure(origin_port, [b"GET /last HTTP/1.1\r\n\r\n"], arrivals, 1).failed == 0


def test_a_request_larger_than_the_socket_takes_at_once_is_sent_whole() -> None:
    body = b"x" * 8_000_000
    request = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    def serve(server: socket.socket) -> None:
        client, _ = server.accept()
        with client, client.makefile("rb") as stream:
            for _ in range(2):
                assert stream.read(len(request)) == request
                client.sendall(_OK)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        result = measure(server.getsockname()[1], [request], [0.0, 0.001], 1)
        thread.join(10)
    assert (result.requests, result.failed) == (2, 0)


def test_waiting_for_an_idle_connection_is_not_lateness(origin_port: int) -> None:
    # one connection for 1,000 requests at once: long waits, of which the client is not the cause
    result = measure(origin_port, [b"GET /ok HTTP/1.1\r\n\r\n"], [0.0] * 1000, 1)
    assert result.late_p99_us <= result.late_max_us < result.p50_us


def test_latency_counts_from_when_a_request_was_due(origin_port: int) -> None:
    # 1,000 requests due at once on one connection: the last waited for all others.
    result = measure(origin_port, [b"GET /ok HTTP/1.1\r\n\r\n"], [0.0] * 1000, 1)
    assert result.max_us > 100 * (result.duration_s * 1e6 / 1000)


def test_arrivals_are_poisson_and_the_same_each_time() -> None:
    arrivals = schedule(1000, 20, seed=1)
    gaps = [b - a for a, b in itertools.pairwise(arrivals)]
    assert arrivals == schedule(1000, 20, seed=1) == sorted(arrivals)
    # 20,000 exponential gaps: mean and deviation are both 1 ms, within 5 %
    assert statistics.mean(gaps) == pytest.approx(0.001, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(0.001, rel=0.05)


@pytest.mark.parametrize("cut", [0, 10, len(_OK) - 4])
def test_an_answer_whose_head_is_not_whole_has_no_length_yet(cut: int) -> None:
    assert answer_length(_OK[:cut]) is None


def test_the_length_of_an_answer_is_known_from_its_head() -> None:
    assert answer_length(_OK[:-2]) == len(_OK)
    assert answer_length(_OK.replace(b"Content-Length", b"content-length") + _OK) == len(_OK)


def test_an_answer_without_content_length_cannot_be_measured() -> None:
    with pytest.raises(BenchmarkError, match="expected a content-length"):
        answer_length(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
