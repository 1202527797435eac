"""Open-loop load: requests leave on a schedule, whether or not earlier ones were answered.

`python -m benchmarks.openloop` is run as a process of its own, pinned; `run` starts it and reads
its JSON.

1. The schedule is made beforehand: Poisson arrivals from a seed, the same for every proxy.
2. Latency counts from the moment a request was due, so a stall is charged to every request that
   it delayed (no coordinated omission).
3. One thread waits in `select`, which takes microseconds where `epoll` rounds up to milliseconds;
   timer slack is set to 1 ns, so that it wakes when a request is due.
4. A request that finds no idle connection waits for one; the wait counts.
5. A connection that breaks before its answer is whole is a failed request, and is replaced.
"""

import argparse
import gc
import json
import random
import re
import select
import ssl
import subprocess
import sys
import time
from collections import deque
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.errors import BenchmarkError
from benchmarks.figures import quantile
from benchmarks.tls import client_context, connect
from benchmarks.workload import read_requests

_STOP_AFTER_S: Final = 10.0
_READ_BYTES: Final = 256 * 1024
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """What was measured. Latencies in microseconds, of the answered requests.

    `failed`: answered with another status than 200, cut, or not answered at all.
    `late_p99_us`, `late_max_us`: how long after it was due the client came to a request. That is
    in the latencies, too, but the client's own; waiting for an idle connection is not in it.
    """

    requests: int
    failed: int
    duration_s: float
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float
    late_p99_us: float
    late_max_us: float = 0.0
    failures: tuple[str, ...] = ()


def run(
    port: int,
    requests: Path,
    *,
    rate: int,
    seconds: float,
    connections: int,
    core: int,
    is_tls: bool = False,
) -> OpenLoop:
    """Send `rate` requests a second for `seconds`.

    Raises:
        BenchmarkError: the client itself failed. Failed requests are counted, not raised.
    """
    command = [
        *("taskset", "-c", str(core), sys.executable, "-m", "benchmarks.openloop", str(port)),
        *(str(requests), str(rate), str(seconds), str(connections)),
        *(["--tls"] if is_tls else []),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise BenchmarkError(f"the open-loop client failed: {ended.stderr}")
    result = json.loads(ended.stdout)
    return OpenLoop(**{**result, "failures": tuple(result["failures"])})


def schedule(rate: float, seconds: float, seed: int) -> list[float]:
    """Poisson arrivals: offsets in seconds, ascending, below `seconds`."""
    gaps = random.Random(seed)
    arrivals: list[float] = []
    at = gaps.expovariate(rate)
    while at < seconds:
        arrivals.append(at)
        at += gaps.expovariate(rate)
    return arrivals


def answer_length(received: bytes | bytearray) -> int | None:
    """Bytes of the answer that `received` begins with, or None while its head is not whole.

    Raises:
        BenchmarkError: the head has no content-length.
    """
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    length = _LENGTH.search(received, 0, end + 2)
    if length is None:
        raise BenchmarkError(f"expected a content-length, found {bytes(received[:end])!r}")
    return end + 4 + int(length[1])


class _Connection:
    """One client connection, with at most one request on its way."""

    def __init__(self, port: int, context: ssl.SSLContext | None) -> None:
        self.sock = connect(port, context, 5.0)
        self.sock.setblocking(False)
        self.due_s = 0.0
        self.unsent = memoryview(b"")
        self.received = bytearray()

    def fileno(self) -> int:
        return self.sock.fileno()

    def send(self, request: bytes, due_s: float) -> None:
        self.due_s = due_s
        self.unsent = memoryview(request)
        self.send_on()

    def send_on(self) -> None:
        """Send what the socket has room for now."""
        with suppress(BlockingIOError, ssl.SSLWantWriteError):
            self.unsent = self.unsent[self.sock.send(self.unsent) :]

    def receive(self) -> str | None:
        """Read what is there. None: not whole yet; "": done; otherwise what went wrong."""
        try:
            chunk = self.sock.recv(_READ_BYTES)
        except ssl.SSLWantReadError:  # part of a record, or a ticket
            return None
        if not chunk:
            return "closed before the answer was whole"
        self.received += chunk
        length = answer_length(self.received)
        if length is None or len(self.received) < length:
            return None
        status = bytes(self.received[9:12])
        return "" if status == b"200" else f"status {status.decode('latin-1')}"

    def has_to_close(self) -> bool:
        return _CLOSE.search(self.received, 0, self.received.find(b"\r\n\r\n") + 2) is not None


class _Client:
    """Sends on schedule and collects. All times are of `time.perf_counter`, in seconds."""

    def __init__(
        self, port: int, requests: list[bytes], connections: int, context: ssl.SSLContext | None
    ) -> None:
        self._port = port
        self._context = context
        self._requests = requests
        self._idle = deque(_Connection(port, context) for _ in range(connections))
        self._busy: set[_Connection] = set()
        self._backlog: deque[tuple[int, float]] = deque()
        self.latencies_s: list[float] = []
        self.late_s: list[float] = []
        self.failures: list[str] = []

    def work(self, arrivals: list[float]) -> None:
        start = time.perf_counter() + 0.05
        stop = start + arrivals[-1] + _STOP_AFTER_S
        due, total = 0, len(arrivals)
        while len(self.latencies_s) + len(self.failures) < total:
            now = time.perf_counter()
            if now > stop:
                missing = total - len(self.latencies_s) - len(self.failures)
                self.failures += ["not answered in time"] * missing
                return
            while due < total and start + arrivals[due] <= now:
                self._backlog.append((due, start + arrivals[due]))
                self.late_s.append(now - start - arrivals[due])
                due += 1
            while self._backlog and self._idle:
                self._send()
            wake = start + arrivals[due] if due < total else stop
            unsent = [connection for connection in self._busy if connection.unsent]
            readable, writable, _ = select.select(
                self._busy, unsent, (), max(0.0, wake - time.perf_counter())
            )
            for connection in writable:
                self._send_on(connection)
            for connection in readable:
                if connection in self._busy:
                    self._receive(connection)

    def close(self) -> None:
        for connection in (*self._idle, *self._busy):
            connection.sock.close()

    def _send(self) -> None:
        index, due_s = self._backlog.popleft()
        connection = self._idle.popleft()
        self._busy.add(connection)
        try:
            connection.send(self._requests[index % len(self._requests)], due_s)
        except OSError as error:
            self._fail(connection, str(error))

    def _send_on(self, connection: _Connection) -> None:
        try:
            connection.send_on()
        except OSError as error:
            self._fail(connection, str(error))

    def _receive(self, connection: _Connection) -> None:
        try:
            outcome = connection.receive()
        except OSError as error:
            outcome = str(error)
        if outcome is None:
            return
        if outcome:
            self._fail(connection, outcome)
            return
        self.latencies_s.append(time.perf_counter() - connection.due_s)
        if connection.has_to_close():
            self._replace(connection)
            return
        connection.received.clear()
        self._busy.discard(connection)
        self._idle.append(connection)

    def _fail(self, connection: _Connection, what: str) -> None:
        self.failures.append(what)
        self._replace(connection)

    def _replace(self, connection: _Connection) -> None:
        self._busy.discard(connection)
        connection.sock.close()
        self._idle.append(_Connection(self._port, self._context))


def measure(
    port: int,
    requests: list[bytes],
    arrivals: list[float],
    connections: int,
    context: ssl.SSLContext | None = None,
) -> OpenLoop:
    """Send, in this process, one request at each of `arrivals` (see `schedule`).

    Raises:
        BenchmarkError: no request was answered, or an answer cannot be measured.
    """
    with closing(_Client(port, requests, connections, context)) as client:
        started_s = time.perf_counter()
        client.work(arrivals)
        duration_s = time.perf_counter() - started_s
    micros = sorted(latency * 1e6 for latency in client.latencies_s)
    if not micros:
        raise BenchmarkError(f"no request was answered: {client.failures[:1]}")
    late_us = sorted(late * 1e6 for late in client.late_s)
    return OpenLoop(
        requests=len(arrivals),
        failed=len(client.failures),
        duration_s=duration_s,
        p50_us=quantile(micros, 0.5),
        p99_us=quantile(micros, 0.99),
        p999_us=quantile(micros, 0.999),
        max_us=micros[-1],
        late_p99_us=quantile(late_us, 0.99),
        late_max_us=late_us[-1],
        failures=tuple(sorted(set(client.failures))),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="open-loop load on 127.0.0.1, result as JSON")
    parser.add_argument("port", type=int)
    parser.add_argument("requests", type=Path, help="a file of requests, each ended by a zero byte")
    parser.add_argument("rate", type=int, help="requests a second")
    parser.add_argument("seconds", type=float)
    parser.add_argument("connections", type=int)
    parser.add_argument("--tls", action="store_true")
    args = parser.parse_args()
    Path("/proc/self/timerslack_ns").write_text("1")
    requests = read_requests(args.requests)
    arrivals = schedule(args.rate, args.seconds, seed=1)
    gc.freeze()
    gc.disable()
    context = client_context() if args.tls else None
    result = measure(args.port, requests, arrivals, args.connections, context)
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
