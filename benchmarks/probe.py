"""Before a proxy is measured: does it answer, and does it do what is to be compared?"""

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.errors import BenchmarkError
from benchmarks.openloop import answer_length
from benchmarks.procs import Running
from benchmarks.tls import client_context, connect

_READY_WITHIN_S: Final = 30.0
_POLL_S: Final = 0.002
_SAMPLE: Final = 2000
_REPEATED: Final = 200
_SHARE_BOUNDS: Final = (0.07, 0.13)  # 0.1 and 4.5 standard deviations of a share of 2000


@dataclass(frozen=True, slots=True)
class Split:
    """The canary's share of users, and whether users who came again met the same version."""

    share: float
    is_sticky: bool


def ask(sock: socket.socket, request: bytes) -> bytes:
    """Send `request`, return the whole answer.

    Raises:
        OSError: the connection failed. BenchmarkError: it was closed before the answer was whole.
    """
    sock.sendall(request)
    received = bytearray()
    while (length := answer_length(received)) is None or len(received) < length:
        chunk = sock.recv(65536)
        if not chunk:
            raise BenchmarkError(f"closed after {len(received)} bytes of an answer")
        received += chunk
    return bytes(received)


def wait_ready(port: int, request: bytes, process: Running, is_tls: bool = False) -> float:
    """Ask until the status is 200; returns the seconds it took.

    Raises:
        BenchmarkError: the program exited, or did not get there in time.
    """
    started_s = time.perf_counter()
    context = client_context() if is_tls else None
    last = "nothing"
    while time.perf_counter() - started_s < _READY_WITHIN_S:
        process.require_alive()
        try:
            with connect(port, context, 1.0) as sock:
                answer = ask(sock, request)
            if answer[9:12] == b"200":
                return time.perf_counter() - started_s
            last = answer.partition(b"\r\n")[0].decode("latin-1")
        except (OSError, BenchmarkError) as error:
            last = str(error)
        time.sleep(_POLL_S)
    log = process.log.read_text(errors="replace")[-2000:]
    raise BenchmarkError(f"{process.name} not ready in {_READY_WITHIN_S:.0f} s: {last}\n{log}")


def check_split(port: int, requests: Sequence[bytes], *, is_sticky: bool) -> Split:
    """Ask as many users, and some of them again.

    Raises:
        BenchmarkError: the canary's share is not about 10 %, or a proxy that should be sticky
            is not.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        first = [_version(ask(sock, request)) for request in requests[:_SAMPLE]]
        again = [_version(ask(sock, request)) for request in requests[:_REPEATED]]
    split = Split(first.count("v2") / len(first), again == first[:_REPEATED])
    low, high = _SHARE_BOUNDS
    if not low <= split.share <= high:
        raise BenchmarkError(f"the canary's share is {split.share:.3f}, expected {low} to {high}")
    if is_sticky and not split.is_sticky:
        raise BenchmarkError("a user met both versions, expected a sticky split")
    return split


def _version(answer: bytes) -> str:
    head = answer.partition(b"\r\n\r\n")[0].lower()
    for version in ("v1", "v2"):
        if f"\r\nx-version: {version}".encode() in head:
            return version
    raise BenchmarkError(f"expected x-version v1 or v2, found {head!r}")
