"""A workload: a directory with the origin's config, the request, and a config for each proxy.

Every text file of the directory is a template: `@NAME@` stands for a value of `Places`.
`request.http` is one request, written with plain newlines; `@USER@` is replaced by a number
for each of `USERS` users, and `content-length` is added when there is a body.
"""

import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.errors import BenchmarkError

USERS: Final = 4096
"""Distinct users in the load: enough for a split of 10 % to be within 1.5 points of it."""

_ROOT: Final = Path(__file__).parent / "workloads"


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are in one run: a directory for files, and ports on 127.0.0.1."""

    directory: Path
    port: int
    admin_port: int
    v1_port: int
    v2_port: int

    def fill(self, template: str) -> str:
        """`template` with its `@NAME@` replaced.

        Raises:
            BenchmarkError: a name is not known.
        """
        values = {
            "DIR": str(self.directory),
            "PORT": str(self.port),
            "ADMIN_PORT": str(self.admin_port),
            "V1_PORT": str(self.v1_port),
            "V2_PORT": str(self.v2_port),
        }

        def value(match: re.Match[str]) -> str:
            if match[1] not in values:
                raise BenchmarkError(f"@{match[1]}@ is not known, use one of {', '.join(values)}")
            return values[match[1]]

        return re.sub(r"@([A-Z0-9_]+)@", value, template)


@dataclass(frozen=True, slots=True)
class Workload:
    """A directory below `workloads/`."""

    name: str
    directory: Path

    def render(self, places: Places) -> None:
        """Write the configs, filled in, to `places.directory`."""
        for template in sorted(self.directory.iterdir()):
            if template.name != "request.http":
                text = places.fill(template.read_text())
                (places.directory / template.name).write_text(text)

    def requests(self) -> list[bytes]:
        """The bytes of one request for each user."""
        return build_requests((self.directory / "request.http").read_text(), USERS)


def names() -> list[str]:
    """Every workload there is."""
    return sorted(path.name for path in _ROOT.iterdir() if path.is_dir())


def load(name: str) -> Workload:
    """Raises BenchmarkError when there is no workload of that name."""
    if name not in names():
        raise BenchmarkError(f"no workload {name!r}, there are: {', '.join(names())}")
    return Workload(name, _ROOT / name)


def build_requests(template: str, users: int) -> list[bytes]:
    """One request for each user from a template (see the module's docstring)."""
    head, _, body = template.partition("\n\n")
    payload = body.removesuffix("\n").encode()
    lines = head.splitlines() + ([f"Content-Length: {len(payload)}"] if payload else [])
    whole = "\r\n".join(lines) + "\r\n\r\n"
    return [whole.replace("@USER@", f"{user:06}").encode() + payload for user in range(users)]


def write_requests(requests: list[bytes], path: Path) -> Path:
    """Write them for the load generators, each ended by a zero byte; returns `path`."""
    path.write_bytes(b"".join(request + b"\0" for request in requests))
    return path


def read_requests(path: Path) -> list[bytes]:
    """What `write_requests` wrote."""
    return path.read_bytes().split(b"\0")[:-1]


def free_ports(count: int) -> list[int]:
    """Distinct ports on which nothing listens now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports
