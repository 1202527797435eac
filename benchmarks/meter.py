"""What a proxy cost between two moments: CPU time, memory, and who else was busy meanwhile."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import machine
from benchmarks.errors import BenchmarkError
from benchmarks.procs import Running, Usage


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU time and memory of a proxy. The root process is nginx's master, our control.

    CPU in microseconds per unit (request, chunk, message); `core` is the share of its core that
    it used meanwhile.
    """

    cpu_us: float
    cpu_descendants_us: float
    core: float
    rss_root_bytes: int
    rss_descendants_bytes: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What happened between `start` and `stop` of a meter. Times in nanoseconds.

    `load_ns`: CPU time of load generators and origin. `busy_ns`: of the whole machine.
    """

    elapsed_ns: int
    spent: Usage | None
    load_ns: int
    busy_ns: int
    rss_bytes: tuple[int, int]

    @property
    def load_core(self) -> float:
        return self.load_ns / self.elapsed_ns

    @property
    def others(self) -> float:
        """CPU time that nobody in the measurement spent, in cores."""
        spent_ns = self.spent.total_ns if self.spent else 0
        return max(0.0, (self.busy_ns - self.load_ns - spent_ns) / self.elapsed_ns)

    def cost(self, units: int) -> Cost | None:
        """The cost of each of `units`, or None where there was no proxy.

        Raises:
            BenchmarkError: there were no units.
        """
        if self.spent is None:
            return None
        if not units:
            raise BenchmarkError("nothing was answered while the cost was measured")
        return Cost(
            cpu_us=self.spent.total_ns / units / 1000,
            cpu_descendants_us=self.spent.descendants_ns / units / 1000,
            core=self.spent.total_ns / self.elapsed_ns,
            rss_root_bytes=self.rss_bytes[0],
            rss_descendants_bytes=self.rss_bytes[1],
        )


class Meter:
    """Reads the clocks of `process` (None: there is no proxy) and of the load. Starts at once."""

    def __init__(self, process: Running | None, load_ns: Callable[[], int]) -> None:
        self._process = process
        self._read_load_ns = load_ns
        self._started_ns, self._usage, self._load_ns, self._busy_ns = self._read()

    def stop(self) -> Reading:
        """Raises BenchmarkError when the proxy has exited."""
        at_ns, usage, load_ns, busy_ns = self._read()
        return Reading(
            elapsed_ns=at_ns - self._started_ns,
            spent=usage.since(self._usage) if usage and self._usage else None,
            load_ns=load_ns - self._load_ns,
            busy_ns=busy_ns - self._busy_ns,
            rss_bytes=self._process.rss_bytes() if self._process else (0, 0),
        )

    def _read(self) -> tuple[int, Usage | None, int, int]:
        usage = self._process.usage() if self._process else None
        return time.perf_counter_ns(), usage, self._read_load_ns(), machine.busy_ns()
