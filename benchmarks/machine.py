"""Facts about the machine and the versions, and how busy the cores were meanwhile."""

import os
import platform
import resource
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.errors import BenchmarkError

_TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cores:
    """The core for proxies, and the core for load generators, origin and this program."""

    proxy: int
    load: int


def divide() -> Cores:
    """Take the first two cores this process may use, and move it to the one for load.

    Raises:
        BenchmarkError: there is only one.
    """
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise BenchmarkError(f"found {len(usable)} usable core, two are needed: proxy, and load")
    cores = Cores(usable[0], usable[1])
    os.sched_setaffinity(0, {cores.load})
    return cores


def facts() -> dict[str, str]:
    """What a reader needs to judge or repeat the numbers."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "host": f"{cpu}, {os.cpu_count()} cores, {memory_kib / 1024**2:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": _commit(),
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
    }


def busy_ns() -> int:
    """Time that cores did not idle since boot, summed over all, in nanoseconds."""
    name, *ticks = Path("/proc/stat").read_text().splitlines()[0].split()
    if name != "cpu":
        raise BenchmarkError(f"/proc/stat begins with {name!r}, expected cpu")
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])
    return (user + nice + system + irq + softirq + steal) * _TICK_NS


def children_ns() -> int:
    """CPU time of this process's own work and of the load generators it has waited for."""
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return int(total * 1e9)


def _commit() -> str:
    root = Path(__file__).parent
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        return head + (" with changes" if _git(root, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(root: Path, *args: str) -> str:
    command = ["git", "-C", str(root), *args]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
