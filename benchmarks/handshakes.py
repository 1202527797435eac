"""New clients: each connects, does a whole TLS handshake, sends one request and leaves.

`python -m benchmarks.handshakes` is run as a process of its own, pinned; `run` starts it and reads
its JSON. One client follows the other, so the proxy's core is not full and what counts is CPU time
per handshake. No session is resumed, as wrk would do: that costs a fraction.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

from benchmarks.errors import BenchmarkError
from benchmarks.figures import quantile
from benchmarks.openloop import OpenLoop
from benchmarks.probe import ask
from benchmarks.tls import client_context, connect
from benchmarks.workload import read_requests

_TIMEOUT_S: Final = 10.0


def run(port: int, requests: Path, *, seconds: float, core: int) -> OpenLoop:
    """Clients one after the other for `seconds`; latencies are from connecting to the answer.

    Raises:
        BenchmarkError: a client failed.
    """
    command = [
        *("taskset", "-c", str(core), sys.executable, "-m", "benchmarks.handshakes"),
        *(str(port), str(requests), str(seconds)),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise BenchmarkError(f"the client failed: {ended.stderr}")
    return OpenLoop(**{**json.loads(ended.stdout), "failures": ()})


def measure(port: int, request: bytes, seconds: float) -> OpenLoop:
    """Do it in this process.

    Raises:
        OSError, BenchmarkError: a client failed, or was answered with another status than 200.
    """
    context, micros = client_context(), []
    started_s = now_s = time.perf_counter()
    while now_s < started_s + seconds:
        with connect(port, context, _TIMEOUT_S) as sock:
            answer = ask(sock, request)
        if answer[9:12] != b"200":
            raise BenchmarkError(f"expected 200, found {answer[:60]!r}")
        before_s, now_s = now_s, time.perf_counter()
        micros.append((now_s - before_s) * 1e6)
    micros.sort()
    return OpenLoop(
        requests=len(micros),
        failed=0,
        duration_s=now_s - started_s,
        p50_us=quantile(micros, 0.5),
        p99_us=quantile(micros, 0.99),
        p999_us=quantile(micros, 0.999),
        max_us=micros[-1],
        late_p99_us=0.0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="new TLS clients on 127.0.0.1, result as JSON")
    parser.add_argument("port", type=int)
    parser.add_argument("requests", type=Path, help="a file of requests; the first is sent")
    parser.add_argument("seconds", type=float)
    args = parser.parse_args()
    (request, *_) = read_requests(args.requests)
    print(json.dumps(asdict(measure(args.port, request, args.seconds))))


if __name__ == "__main__":
    main()
