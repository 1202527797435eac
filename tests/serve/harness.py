"""The whole program as an operator has it: `python -m router serve FILE` and HTTP.

Owns the process, its config file, its log and the questions to its admin API. Every wait is a
`poll` with a deadline; every port is chosen by the kernel and read from the `ready` line.
"""

import http.client
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tests.serve.origins import Origin

DEADLINE_S = 30.0
_T = TypeVar("_T")


def poll(condition: Callable[[], _T], what: str = "") -> _T:
    """The first true result of `condition`; fails at the deadline."""
    end_s = time.monotonic() + DEADLINE_S
    while not (result := condition()):
        assert time.monotonic() < end_s, f"still not {what or condition}: {result}"
        time.sleep(0.02)
    return result


@dataclass(frozen=True)
class Answer:
    """A response. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def read_answer(response: http.client.HTTPResponse) -> Answer:
    body = response.read()
    return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, body)


def call(
    address: str,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request over a connection of its own. `body` may be bytes or what becomes JSON."""
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    connection = http.client.HTTPConnection(address, timeout=DEADLINE_S)
    try:
        connection.request(method, path, body, headers or {})
        return read_answer(connection.getresponse())
    finally:
        connection.close()


def document(backends: Sequence[Origin | tuple[str, str]], **changes: Any) -> dict[str, Any]:
    """A config: one backend for each server (or name and URL), one plain route to the first."""
    pairs = [b if isinstance(b, tuple) else (b.name, b.url) for b in backends]
    return {
        "listen": "127.0.0.1:0",
        "admin": {"listen": "127.0.0.1:0"},
        "workers": 1,
        "state": "memory:",
        "logging": {"format": "json"},
        "drain_timeout": "10s",
        "backends": {name: {"endpoints": [url]} for name, url in pairs},
        "routes": [{"name": "plain", "match": {"path": "/plain/"}, "backend": pairs[0][0]}],
        **changes,
    }


def canary(weight: str, **changes: Any) -> dict[str, Any]:
    """A route below `/canary/` from v1 to v2, sticky by `x-user-id`."""
    return {
        "name": "canary",
        "match": {"path": "/canary/"},
        "policy": {
            "type": "canary",
            "stable": "v1",
            "canary": "v2",
            "weight": weight,
            "sticky": {"header": "x-user-id"},
        },
        **changes,
    }


def bandit(name: str = "learner") -> dict[str, Any]:
    """A route below `/NAME/` that learns between v1 and v2."""
    return {
        "name": name,
        "match": {"path": f"/{name}/"},
        "policy": {"type": "bandit", "variants": [{"backend": "v1"}, {"backend": "v2"}]},
    }


class Router:
    """A `serve` that was started; `ready` waits for it."""

    def __init__(
        self,
        directory: Path,
        config: Mapping[str, Any] | str,
        path: Path | None = None,
        *,
        env: Mapping[str, str] | None = None,
        open_files: int | None = None,
    ) -> None:
        """`env` is added to the environment; `open_files` is the most that each process may open,
        and what it cannot raise."""
        self.path = path or directory / "router.yaml"
        self.log = directory / f"log-{time.monotonic_ns()}"
        if path is None:
            self.path.write_text(config if isinstance(config, str) else json.dumps(config))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "router", "serve", str(self.path)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
                preexec_fn=None if open_files is None else partial(_limit, open_files),
            )

    # the process

    def ready(self) -> "Router":
        def look() -> list[dict[str, Any]]:
            assert self.process.poll() is None, self.log.read_text()
            return self.events("ready")

        line = poll(look, "ready")[0]
        self.listen, self.admin = line["listen"], line["admin"]
        return self

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit status."""
        return self.process.wait(DEADLINE_S)

    def stop(self) -> None:
        """Stop as an operator does; it must go well."""
        self.signal(signal.SIGTERM)
        status = self.wait()
        assert status == 0, f"exit status {status}:\n{self.log.read_text()}"

    def kill(self) -> None:
        """The end of a test, however it went."""
        if self.process.poll() is None:
            pids = self.spawned()  # they would serve on without control
            self.process.kill()
            self.process.wait(DEADLINE_S)
            kill(pids)

    def spawned(self) -> list[int]:
        """Its workers, whatever their state."""
        tasks = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in tasks.read_text().split()] if tasks.exists() else []

    # its log

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of this event so far."""
        lines = self.log.read_text().split("\n")[:-1]
        parsed = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in parsed if line["event"] == name]

    # its config file

    def write(self, config: Mapping[str, Any] | str) -> None:
        """Rename a new version over the file, as editors do."""
        replacement = self.path.with_suffix(".new")
        replacement.write_text(config if isinstance(config, str) else json.dumps(config))
        replacement.rename(self.path)

    def write_and_wait(self, config: Mapping[str, Any]) -> None:
        """Put a new version in force."""
        before = self.generation()
        self.write(config)
        poll(lambda: self.generation() > before, "reloaded")

    # its admin API

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = call(self.admin, "GET", "/status").json()
        return document

    def generation(self) -> int:
        """The config that every worker has in force."""
        status = self.status()
        serving: list[int] = [w["generation"] for w in status["workers"] if w["state"] == "serving"]
        return min([int(status["generation"]), *serving])

    def route(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = call(self.admin, "GET", f"/routes/{name}").json()
        return document

    def weights(self, route: str) -> dict[str, float]:
        return {v["name"]: v["weight"] for v in self.route(route)["variants"]}

    def worker_pids(self) -> list[int]:
        return [w["pid"] for w in self.status()["workers"] if w["state"] == "serving"]

    def metrics(self) -> dict[str, float]:
        """Series (`name{label="value",...}`, labels in order of the alphabet) -> value."""
        return parse_metrics(call(self.admin, "GET", "/metrics").body.decode())


def parse_metrics(exposition: str) -> dict[str, float]:
    lines = (line for line in exposition.splitlines() if line and not line.startswith("#"))
    return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines)}


def total(metrics: Mapping[str, float], name: str, **labels: str) -> float:
    """The sum over the series of `name` that have these labels."""

    def is_meant(series: str) -> bool:
        own = dict(re.findall(r'(\w+)="([^"]*)"', series))
        return series.partition("{")[0] == name and labels.items() <= own.items()

    return sum(value for series, value in metrics.items() if is_meant(series))


def _limit(open_files: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))


@contextmanager
def serving(
    directory: Path, config: Mapping[str, Any] | str, path: Path | None = None, **options: Any
) -> Iterator[Router]:
    """A router that is ready. Nothing of it is left afterwards."""
    router = Router(directory, config, path, **options)
    try:
        yield router.ready()
    finally:
        router.kill()


def kill(pids: Iterable[int]) -> None:
    """Those that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Whether the process runs (a zombie that nobody waited for does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
