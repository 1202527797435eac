"""Load of many streams at a fixed rate: server-sent events, or messages on WebSockets.

`python -m benchmarks.streams` is run as a process of its own, pinned; `started` starts it.

1. Each stream has its own random phase, from a seed, so that units arrive as they do from many
   users: neither in step nor in bursts. One schedule for every proxy.
2. A unit is an event on its way to the client, or a message to the origin and back.
3. Delay counts from when a unit was due; how late the sender was is known apart, by its stamp.
4. Every unit is looked at: a lost, repeated, changed or surplus one ends the program. Units before
   and after the measured window are looked at, too, but not counted.
5. The client says BEGIN and END as it comes to the window's borders, for who reads CPU times.
"""

import argparse
import heapq
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Final

from benchmarks.errors import BenchmarkError
from benchmarks.figures import quantile
from benchmarks.kinds import KINDS, Messages, Stream, Tally
from benchmarks.openloop import OpenLoop
from benchmarks.poller import Poller, exact_timers
from benchmarks.procs import cpu_ns

_WARM_UP_S: Final = 1.0
_TAIL_S: Final = 0.3
_END_WITHIN_S: Final = 5.0


class Client:
    """All streams of one run, in this process."""

    def __init__(
        self,
        kind: str,
        port: int,
        *,
        connections: int,
        rate: float,
        seconds: float,
        warm_up_s: float = _WARM_UP_S,
    ) -> None:
        self._seconds = seconds
        self._warm_up_s = warm_up_s
        self._every_ns = int(connections / rate * 1e9)
        total_s = warm_up_s + seconds + _TAIL_S
        count = max(1, int(total_s * 1e9 / self._every_ns))
        self._tally = Tally()
        self._poller = Poller()
        self._streams: list[Stream] = []
        self._due: list[Messages] = []
        for _ in range(connections):
            stream = KINDS[kind](port, self._tally, self._every_ns, count)
            self._streams.append(stream)
            stream.open()

    def measure(self) -> OpenLoop:
        """Run all streams from their first unit to their last.

        Raises:
            BenchmarkError: a unit was lost, changed, or did not come in time.
        """
        # half a warm-up from when streams are asked for to the first unit, then a whole one
        start_ns = time.monotonic_ns() + int(self._warm_up_s / 2 * 1e9)
        phases = random.Random(1)
        for stream in self._streams:
            stream.start(self._poller, start_ns + phases.randrange(self._every_ns))
            if isinstance(stream, Messages):
                heapq.heappush(self._due, stream)
        begin_ns = start_ns + int(self._warm_up_s * 1e9)
        end_ns = begin_ns + int(self._seconds * 1e9)
        self._run(begin_ns)
        print("BEGIN", flush=True)
        self._tally.is_counting = True
        self._run(end_ns)
        self._tally.is_counting = False
        print("END", flush=True)
        self._run(end_ns + int((_TAIL_S + _END_WITHIN_S) * 1e9), until_whole=True)
        return self._result()

    def close(self) -> None:
        for stream in self._streams:
            stream.close()
        self._poller.close()

    def _run(self, until_ns: int, *, until_whole: bool = False) -> None:
        while (now_ns := time.monotonic_ns()) < until_ns:
            if until_whole and all(stream.is_whole for stream in self._streams):
                return
            while self._due and self._due[0].due_ns <= now_ns:
                stream = heapq.heappop(self._due)
                if stream.send():
                    heapq.heappush(self._due, stream)
            wake_ns = min(self._due[0].due_ns, until_ns) if self._due else until_ns
            self._poller.poll(wake_ns)
        if until_whole:
            missing = sum(not stream.is_whole for stream in self._streams)
            raise BenchmarkError(f"{missing} of {len(self._streams)} streams did not end in time")

    def _result(self) -> OpenLoop:
        delays_us, late_us = sorted(self._tally.delays_us), sorted(self._tally.late_us)
        if not delays_us:
            raise BenchmarkError("nothing came in the measured time")
        return OpenLoop(
            requests=len(delays_us),
            failed=0,
            duration_s=self._seconds,
            p50_us=quantile(delays_us, 0.5),
            p99_us=quantile(delays_us, 0.99),
            p999_us=quantile(delays_us, 0.999),
            max_us=delays_us[-1],
            late_p99_us=quantile(late_us, 0.99),
            late_max_us=late_us[-1],
        )


class Started:
    """The client as a process of its own. Call `begin`, `end` and `result` in this order."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self._popen = popen

    def begin(self) -> None:
        """Return when the measured window begins. Raises BenchmarkError: the client failed."""
        self._expect("BEGIN")

    def end(self) -> None:
        """Return when the measured window ends. Raises BenchmarkError: the client failed."""
        self._expect("END")

    def result(self) -> OpenLoop:
        """What was measured. Raises BenchmarkError: the client failed."""
        output, errors = self._popen.communicate()
        if self._popen.returncode != 0:
            raise BenchmarkError(f"the client of streams failed: {errors}")
        return OpenLoop(**{**json.loads(output), "failures": ()})

    def cpu_ns(self) -> int:
        """CPU time of the client so far."""
        return cpu_ns(self._popen.pid)

    def _expect(self, line: str) -> None:
        found = self._popen.stdout.readline().strip() if self._popen.stdout else ""
        if found != line:
            errors = self._popen.communicate()[1]
            raise BenchmarkError(f"the client of streams failed: {errors}")


@contextmanager
def started(
    kind: str, port: int, *, rate: int, seconds: float, connections: int, core: int
) -> Iterator[Started]:
    """Start the client, pinned to `core`; it is gone at the end."""
    command = [
        *("taskset", "-c", str(core), sys.executable, "-m", "benchmarks.streams", kind),
        *(str(port), str(rate), str(seconds), str(connections)),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as popen:
        try:
            yield Started(popen)
        finally:
            popen.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description="streams on 127.0.0.1, result as JSON")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("port", type=int)
    parser.add_argument("rate", type=int, help="units a second, of all streams together")
    parser.add_argument("seconds", type=float)
    parser.add_argument("connections", type=int)
    args = parser.parse_args()
    try:
        client = Client(
            args.kind,
            args.port,
            connections=args.connections,
            rate=args.rate,
            seconds=args.seconds,
        )
        exact_timers()
        result = client.measure()
    except (BenchmarkError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    client.close()
    print(json.dumps(asdict(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
