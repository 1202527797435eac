import sys
import time
from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.procs import running

_FAMILY = """
import os, time
os.fork()
held = bytearray(32 * 2**20)
print("up", flush=True)
time.sleep(60)
"""


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.process
def test_the_usage_of_descendants_is_apart_from_the_root(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running("family", [sys.executable, "-c", _FAMILY], log=log, core=None) as process:
        while log.read_text().count("up") < 2:
            process.require_alive()
        assert len(process.descendants()) == 1
        root_bytes, descendants_bytes = process.rss_bytes()
        usage = process.usage()
        child = process.descendants()[0]
    assert min(root_bytes, descendants_bytes) > 32 * 2**20
    assert usage.root_ns > 0
    assert usage.descendants_ns > 0
    assert usage.total_ns == usage.root_ns + usage.descendants_ns
    assert _is_gone(process.pid)
    deadline_s = time.monotonic() + 10
    while not _is_gone(child):
        assert time.monotonic() < deadline_s, "a descendant was left behind"


@pytest.mark.process
def test_a_program_that_exited_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such port')"]
    with (
        running("short", command, log=tmp_path / "log", core=None) as process,
        pytest.raises(BenchmarkError, match=r"short exited with status 1:\nno such port"),
    ):
        while True:
            process.require_alive()
