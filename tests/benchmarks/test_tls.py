"""TLS of the load: a certificate that proxies take, clients that are whole handshakes."""

import shutil
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks import handshakes, openloop, tls, workload
from benchmarks.errors import BenchmarkError

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")

REQUEST = b"GET / HTTP/1.1\r\nHost: models.example\r\n\r\n"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(directory: Path, status: int = 200) -> Iterator[tuple[int, ssl.SSLContext]]:
    """The port of a server with a fresh certificate, and the context that it accepts with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.make_certificate(directory / tls.FILE))
    handler = type("_Answering", (_Handler,), {"status": status})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_port, context
        finally:
            server.shutdown()
            thread.join()


def test_every_new_client_does_a_whole_handshake(tmp_path: Path) -> None:
    with serving(tmp_path) as (port, context):
        found = handshakes.measure(port, REQUEST, 0.3)
        stats = context.session_stats()
    assert found.requests >= 2
    assert (found.failed, found.late_p99_us) == (0, 0.0)
    assert 0 < found.p50_us <= found.p99_us <= found.max_us
    assert stats["accept_good"] >= found.requests
    assert stats["hits"] == 0


def test_another_status_than_200_ends_the_measurement(tmp_path: Path) -> None:
    with serving(tmp_path, status=503) as (port, _), pytest.raises(BenchmarkError, match="503"):
        handshakes.measure(port, REQUEST, 0.1)


def test_the_open_loop_speaks_tls_on_kept_connections(tmp_path: Path) -> None:
    with serving(tmp_path) as (port, context):
        arrivals = [0.001 * i for i in range(20)]
        found = openloop.measure(port, [REQUEST], arrivals, 2, tls.client_context())
        assert (found.requests, found.failed) == (20, 0)
        assert context.session_stats()["accept_good"] == 2


@pytest.mark.parametrize("name", ["tls", "tls-handshakes"])
def test_every_proxy_of_the_workload_shows_the_certificate(name: str, tmp_path: Path) -> None:
    chosen = workload.load(name)
    chosen.render(workload.Places(tmp_path, 1, 2, 3, 4))
    for config in ("nginx.conf", "haproxy.cfg", "pointsman.yaml"):
        assert f"{tmp_path}/{tls.FILE}" in (tmp_path / config).read_text()
