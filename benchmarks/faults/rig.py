"""A router under test, its misbehaving origin, and clients that speak bytes.

Owns starting and stopping; knows no figure. Everything listens on loopback, on free ports.
"""

import asyncio
import json
import socket
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from benchmarks.errors import BenchmarkError
from benchmarks.faults.origin import Origin
from benchmarks.procs import Running, rss_bytes, running

DEADLINE_S: Final = 60.0
MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Figure:
    """What was aimed at and what was measured; `values` for machines, units in the names."""

    name: str
    aim: str
    measured: str
    is_met: bool
    values: Mapping[str, float] = field(default_factory=dict)


async def eventually(condition: Callable[[], object], what: str) -> None:
    """Poll until `condition` holds.

    Raises:
        BenchmarkError: it does not within `DEADLINE_S`.
    """
    for _ in range(int(DEADLINE_S / 0.001)):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise BenchmarkError(f"waited {DEADLINE_S:g} s in vain: {what}")


class Client:
    """One connection to the router."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.sent_bytes = 0
        """Of a request's body, as far as handed over."""

    def ask(self, path: str, more: bytes = b"", method: bytes = b"GET") -> None:
        """Send a head; `more` is whole lines, and what follows the empty line when it has one."""
        end = b"" if b"\r\n\r\n" in more else b"\r\n"
        self.writer.write(b"%b %b HTTP/1.1\r\nhost: x\r\n" % (method, path.encode()) + more + end)

    async def head(self) -> tuple[int, int]:
        """Status and content-length of the next answer.

        Raises:
            BenchmarkError: the connection ended before.
        """
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise BenchmarkError(f"the connection ended instead of an answer: {error}") from None
        _, is_given, length = head.partition(b"content-length:")
        return int(head[9:12]), int(length.split(b"\r\n")[0]) if is_given else -1

    async def answer(self) -> int:
        """Status of the next answer, its body (of known length) read."""
        status, length = await self.head()
        await self.reader.readexactly(max(0, length))
        return status

    def pause_reading(self) -> None:
        """Take nothing any more, beyond what the kernel holds."""
        cast(asyncio.Transport, self.writer.transport).pause_reading()

    def reset(self) -> None:
        """Leave as a killed client does."""
        sock = self.writer.get_extra_info("socket")
        if sock is not None and not self.writer.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()


class Rig:
    """A running router with one worker whose only backend is `origin`."""

    def __init__(self, process: Running, listen: str, admin: str, origin: Origin) -> None:
        host, _, port = listen.rpartition(":")
        self.host, self.port = host, int(port)
        self.origin = origin
        self._admin = admin
        self._process = process
        self._worker = 0
        """The pid of the worker that serves; the spare is another."""

    async def find_worker(self) -> None:
        (worker,) = json.loads(await self._ask_admin("/status"))["workers"]
        self._worker = worker["pid"]

    def worker_rss_bytes(self) -> int:
        self._process.require_alive()
        return rss_bytes(self._worker)

    async def connect(self) -> Client:
        return Client(*await asyncio.open_connection(self.host, self.port, limit=256 * 1024))

    async def metrics(self) -> str:
        """The exposition, counters of the worker included."""
        return await self._ask_admin("/metrics")

    async def _ask_admin(self, path: str) -> str:
        host, _, port = self._admin.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        writer.write(head.encode())
        text = (await reader.read()).decode()
        writer.close()
        return text.partition("\r\n\r\n")[2]

    async def gauge(self, name: str) -> float:
        """The value of a series without labels."""
        for line in (await self.metrics()).splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        raise BenchmarkError(f"no series {name}")


@asynccontextmanager
async def rig(hosts: Sequence[str] = ("127.0.0.1",), **changes: Any) -> AsyncIterator[Rig]:
    """A router with its origin. `changes` are of the config's top level, or `backend={...}`.

    With several `hosts` the origin is as many endpoints: each has the machine's ports anew.

    Raises:
        BenchmarkError: the router did not get ready, or died.
    """
    origin = Origin()
    await origin.start(hosts=hosts)
    endpoints = [f"http://{host}:{origin.port}" for host in hosts]
    # clients that leave unanswered by the thousand are what is measured here, not an overload
    limits = {"shed": None}
    backend = {"endpoints": endpoints, "limits": limits, **changes.pop("backend", {})}
    config = {
        "listen": "127.0.0.1:0",
        "admin": {"listen": "127.0.0.1:0"},
        "workers": 1,
        "state": "memory:",
        "logging": {"format": "json"},
        "drain_timeout": "1s",
        "backends": {"origin": backend},
        "routes": [{"name": "all", "backend": "origin"}],
        **changes,
    }
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        path, log = Path(name) / "router.yaml", Path(name) / "log"
        path.write_text(json.dumps(config))
        command = [sys.executable, "-m", "router", "serve", str(path)]
        with running("pointsman", command, log=log, core=None) as process:
            ready: list[dict[str, Any]] = []

            def is_ready() -> bool:
                process.require_alive()
                lines = log.read_text().split("\n")[:-1]
                parsed = (json.loads(line) for line in lines if line.startswith("{"))
                ready.extend(line for line in parsed if line["event"] == "ready")
                return bool(ready)

            await eventually(is_ready, "the router to be ready")
            try:
                it = Rig(process, ready[0]["listen"], ready[0]["admin"], origin)
                await it.find_worker()
                yield it
                process.require_alive()
            finally:
                await origin.stop()
