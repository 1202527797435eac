"""Closed-loop load: wrk keeps a number of connections busy and counts what comes back."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.errors import BenchmarkError

_SCRIPT: Final = Path(__file__).parent / "load.lua"


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """What wrk measured, as fast as the answers came. Latencies in microseconds."""

    requests: int
    duration_s: float
    p50_us: int
    p99_us: int
    p999_us: int

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.duration_s


def run(
    port: int,
    requests: Path,
    count: int,
    *,
    seconds: int,
    connections: int,
    core: int,
    is_tls: bool = False,
) -> ClosedLoop:
    """Send the `count` requests of the file `requests` over and over, for `seconds`.

    Raises:
        BenchmarkError: wrk is missing or failed, or a request did (see `parse`).
    """
    scheme = "https" if is_tls else "http"
    command = [
        *("taskset", "-c", str(core), "wrk", "--threads", "1"),
        *("--connections", str(connections), "--duration", f"{seconds}s", "--timeout", "10s"),
        *("--script", str(_SCRIPT), f"{scheme}://127.0.0.1:{port}/"),
        *("--", str(requests), str(count)),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise BenchmarkError(f"wrk failed: {ended.stdout}{ended.stderr}")
    return parse(ended.stdout)


def parse(output: str) -> ClosedLoop:
    """Read the line that `load.lua` prints.

    Raises:
        BenchmarkError: there is none, a request failed, or none was answered.
    """
    marked = [line for line in output.splitlines() if line.startswith("RESULT ")]
    if len(marked) != 1:
        raise BenchmarkError(f"wrk printed {len(marked)} results, expected 1:\n{output}")
    result = json.loads(marked[0].removeprefix("RESULT "))
    failed = {kind: count for kind, count in result["errors"].items() if count}
    if failed or not result["requests"]:
        raise BenchmarkError(f"wrk: {result['requests']} requests answered, failures: {failed}")
    return ClosedLoop(
        requests=result["requests"],
        duration_s=result["duration_us"] / 1e6,
        p50_us=result["p50_us"],
        p99_us=result["p99_us"],
        p999_us=result["p999_us"],
    )


def version() -> str:
    """wrk's own first line (it says it with a failing exit status)."""
    ended = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False)
    return ended.stdout.splitlines()[0].partition(" Copyright")[0]
