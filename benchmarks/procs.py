"""Processes under measurement: started pinned, watched, accounted and stopped by pid.

Owns nothing about what is measured.

1. A process is started through `taskset`, which replaces itself, so its pid is the program's.
2. Its cost is that of its whole tree: every thread of it and of its descendants.
3. CPU time is read in nanoseconds from `/proc/PID/task/*/schedstat` (first field: time on a CPU).
   It agrees with user + system time of `/proc/PID/stat`, whose unit is 10 ms.
"""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import BenchmarkError

_STOP_WITHIN_S = 10.0
_LOG_TAIL_LINES = 20


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU time so far, in nanoseconds: of the first process, and of its descendants."""

    root_ns: int
    descendants_ns: int

    @property
    def total_ns(self) -> int:
        return self.root_ns + self.descendants_ns

    def since(self, earlier: "Usage") -> "Usage":
        return Usage(self.root_ns - earlier.root_ns, self.descendants_ns - earlier.descendants_ns)


class Running:
    """A started program and its descendants."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self._popen = popen

    @property
    def pid(self) -> int:
        return self._popen.pid

    def descendants(self) -> list[int]:
        """Pids of all descendants, parents first."""
        found: list[int] = []
        pending = [self.pid]
        while pending:
            for task in Path(f"/proc/{pending.pop()}/task").glob("*/children"):
                children = [int(pid) for pid in task.read_text().split()]
                found += children
                pending += children
        return found

    def require_alive(self) -> None:
        """Raises BenchmarkError, with the end of the log, when the program has exited."""
        if (status := self._popen.poll()) is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:])
            raise BenchmarkError(f"{self.name} exited with status {status}:\n{tail}")

    def status(self) -> int | None:
        """The exit status, or None while the program runs."""
        return self._popen.poll()

    def usage(self) -> Usage:
        self.require_alive()
        return Usage(cpu_ns(self.pid), sum(cpu_ns(pid) for pid in self.descendants()))

    def rss_bytes(self) -> tuple[int, int]:
        """Resident memory: of the first process, and summed over its descendants.

        Pages that several processes share are counted in each.
        """
        self.require_alive()
        return rss_bytes(self.pid), sum(rss_bytes(pid) for pid in self.descendants())

    def pin(self, core: int) -> None:
        """Move every thread of the first process, and what it starts from now on, to `core`."""
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {core})

    def stop(self) -> None:
        """End the program, by force after a while, and whatever it left behind."""
        self._popen.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(_STOP_WITHIN_S)
        with suppress(ProcessLookupError):  # nothing left of its group, which is ours alone
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    *,
    log: Path,
    core: int | None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Run `command`, pinned to `core` (None: wherever this process may run), until the end."""
    pinned = list(command) if core is None else ["taskset", "-c", str(core), *command]
    with log.open("wb") as output:
        popen = subprocess.Popen(
            pinned,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ | dict(environment or {}),
            start_new_session=True,
        )
    process = Running(name, popen, log)
    try:
        yield process
    finally:
        process.stop()


def cpu_ns(pid: int) -> int:
    """CPU time of all threads of `pid`, in nanoseconds."""
    return sum(
        int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")
    )


def rss_bytes(pid: int) -> int:
    """Resident memory of `pid` now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
