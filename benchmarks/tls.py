"""TLS for the load: one certificate for all proxies of a run, and clients that take any.

The certificate is made when a run starts, on the curve that most of today's certificates have.
Clients do not look at it: what that costs is theirs.
"""

import socket
import ssl
import subprocess
from pathlib import Path
from typing import Final

from benchmarks.errors import BenchmarkError

FILE: Final = "server.pem"
"""The certificate and its key, beside a proxy's config."""


def make_certificate(path: Path) -> Path:
    """Write a certificate and its key, valid for two days; returns `path`.

    Raises:
        BenchmarkError: openssl is missing or failed.
    """
    key = path.with_suffix(".key")
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-nodes", "-days", "2", "-subj", "/CN=models.example", "-keyout", str(key)),
        *("-addext", "subjectAltName=DNS:models.example", "-out", str(path)),
    ]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BenchmarkError("openssl is missing: apt install openssl") from None
    if ended.returncode != 0:
        raise BenchmarkError(f"openssl failed: {ended.stderr}")
    path.write_text(path.read_text() + key.read_text())
    return path


def client_context() -> ssl.SSLContext:
    """What a client of a benchmark connects with: TLS 1.3, the certificate unseen."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def connect(port: int, context: ssl.SSLContext | None, timeout_s: float) -> socket.socket:
    """A connection to a proxy, after its handshake when there is a `context`.

    Raises:
        OSError: there is none.
    """
    sock = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is None:
        return sock
    try:
        return context.wrap_socket(sock, server_hostname="models.example")
    except BaseException:
        sock.close()
        raise
