"""A proxy in front of three endpoints, each a process of its own that can be killed or stopped.

Owns starting and stopping; knows no figure. The configs of all proxies lie beside each other in
`workloads/failover`; every file there is a template of `@NAME@`, as in other workloads. The
proxy runs on a core of its own; endpoints and client share that of this process.
"""

import asyncio
import json
import re
import signal
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks.errors import BenchmarkError
from benchmarks.failover.load import Connection, Load
from benchmarks.faults.rig import eventually
from benchmarks.peers import POINTSMAN, Peer
from benchmarks.procs import Running, rss_bytes, running
from benchmarks.workload import free_ports

CONFIGS: Final = Path(__file__).parent.parent / "workloads" / "failover"
NAMES: Final = ("a", "b", "c")
_ANSWER_WITHIN_S: Final = 5.0
_READY: Final = b"GET /ready HTTP/1.1\r\nhost: models\r\n\r\n"


class Process:
    """One endpoint, `benchmarks.failover.endpoint`, at a port that it keeps when started again."""

    def __init__(self, name: str, port: int, directory: Path) -> None:
        self.name = name
        self.port = port
        self._file = directory / f"delivered-{name}"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it; it listens."""
        command = [sys.executable, "-m", "benchmarks.failover.endpoint", str(self.port)]
        self._process = await asyncio.create_subprocess_exec(
            *command, self.name, str(self._file), stdin=asyncio.subprocess.PIPE
        )
        await eventually(self._listens, f"endpoint {self.name} to listen")

    def tell(self, mode: str, argument: float = 0.0) -> None:
        """Behave like that from now on."""
        stdin = self._running().stdin
        assert stdin is not None  # noqa: S101 - it was started with a pipe
        stdin.write(f"{mode} {argument}\n".encode())

    def freeze(self) -> None:
        """Hang, wholly: the kernel still accepts connections, nobody answers."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        process = self._running()
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        self._process = None

    async def stop(self) -> None:
        if self._process is not None:
            await self.kill()

    def delivered(self) -> list[str]:
        """The ids of requests that it was sent, in order."""
        return self._file.read_text().split() if self._file.exists() else []

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise BenchmarkError(f"endpoint {self.name} does not run")
        return self._process

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Stand:
    """A running proxy with its endpoints."""

    def __init__(
        self, peer: Peer, process: Running, port: int, admin_port: int, endpoints: list[Process]
    ) -> None:
        self.peer = peer
        self.process = process
        self.port = port
        self.endpoints = endpoints
        self._admin_port = admin_port

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def config(self) -> Path:
        """The file that Pointsman watches."""
        return self.process.log.parent / "pointsman.yaml"

    def load(self, **options: Any) -> Load:
        """Load on the proxy; not started yet."""
        return Load(self.address, **options)

    def delivered(self) -> Counter[str]:
        """How often each request reached an endpoint."""
        return Counter(name for endpoint in self.endpoints for name in endpoint.delivered())

    def worker_pids(self) -> list[int]:
        return self.process.descendants()

    def memory_bytes(self) -> int:
        """Of all its processes; shared pages count in each."""
        return rss_bytes(self.process.pid) + sum(rss_bytes(pid) for pid in self.worker_pids())

    def write(self, config: Mapping[str, Any]) -> None:
        """Rename a new config over Pointsman's file."""
        beside = self.config.with_suffix(".new")
        beside.write_text(json.dumps(config))
        beside.rename(self.config)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of that event in Pointsman's log."""
        lines = self.process.log.read_text().split("\n")[:-1]
        parsed = (json.loads(line) for line in lines if line.startswith("{"))
        return [line for line in parsed if line["event"] == name]

    async def metrics(self) -> dict[str, float]:
        """Pointsman's series."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._admin_port)
        writer.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        lines = (line for line in text.splitlines() if line.startswith("pointsman_"))
        return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines)}


def total(metrics: Mapping[str, float], name: str, *labels: str) -> float:
    """The sum of a metric's series that have all of these `label="value"`."""
    return sum(
        value
        for series, value in metrics.items()
        if series.partition("{")[0] == name and all(label in series for label in labels)
    )


@asynccontextmanager
async def stand(
    core: int,
    peer: Peer = POINTSMAN,
    change: Callable[[dict[str, Any]], object] = lambda config: None,
) -> AsyncIterator[Stand]:
    """A proxy that serves, on `core`, with endpoints that answer. `change` edits our own config.

    Raises:
        BenchmarkError: it did not get ready, or died.
    """
    ports = free_ports(2 + len(NAMES))
    with tempfile.TemporaryDirectory(prefix="failover-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # noqa: ASYNC240 - nothing else runs yet; nginx may be another user
        noted = directory / "noted"  # apart: Pointsman watches the directory of its config
        noted.mkdir()
        endpoints = [Process(own, port, noted) for own, port in zip(NAMES, ports[2:], strict=True)]
        _write_configs(peer, directory, ports, change)
        command = [_fill(argument, directory, ports) for argument in peer.command()]
        try:
            for endpoint in endpoints:
                await endpoint.start()
            with running(peer.name, command, log=directory / "log", core=core) as process:
                await _ready(process, ports[0])
                yield Stand(peer, process, ports[0], ports[1], endpoints)
        finally:
            for endpoint in endpoints:
                await endpoint.stop()


def _write_configs(
    peer: Peer, directory: Path, ports: list[int], change: Callable[[dict[str, Any]], object]
) -> None:
    for template in CONFIGS.iterdir():
        (directory / template.name).write_text(_fill(template.read_text(), directory, ports))
    if peer is POINTSMAN:
        path = directory / "pointsman.yaml"
        config = yaml.safe_load(path.read_text())
        change(config)
        path.write_text(json.dumps(config))


def _fill(template: str, directory: Path, ports: list[int]) -> str:
    names = ("PORT", "ADMIN_PORT", "A_PORT", "B_PORT", "C_PORT")
    values = dict(zip(names, map(str, ports), strict=True)) | {"DIR": str(directory)}
    return re.sub(r"@([A-Z_]+)@", lambda match: values[match[1]], template)


async def _ready(process: Running, port: int) -> None:
    """Wait until requests are answered 200, a row of them: health checks may have to pass first."""
    good = 0

    async def ask() -> bool:
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                loop = asyncio.get_running_loop()
                _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
                reply, error = await connection.ask(_READY)
            connection.close()
        except OSError:  # of which TimeoutError is one
            return False
        return not error and reply.status == 200

    for _ in range(1000):
        process.require_alive()
        good = good + 1 if await ask() else 0
        if good == 20:
            return
        await asyncio.sleep(0.02)
    raise BenchmarkError(f"{process.name} does not serve:\n{process.log.read_text()[-2000:]}")
