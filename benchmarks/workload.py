"""Workloads: what is asked of every proxy, and the configs it is asked with.

The configs of a workload lie in a directory below `workloads/`, one for each proxy. Every file
there is a template: `@NAME@` stands for a value of `Places`, and a line with `@EACH_PORT@` is
repeated for each port of the origin. A file `*.http` is one request, written with plain newlines;
`@USER@` is replaced by a number for each user, and `content-length` is added when there is a body.
"""

import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from benchmarks.errors import BenchmarkError

_ROOT: Final = Path(__file__).parent / "workloads"
_READY: Final = b"GET /ready HTTP/1.1\r\nHost: models.example\r\n\r\n"
_MIB: Final = 1024 * 1024
_EACH: Final = re.compile(r"^.*@EACH_PORT@.*\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are in one run: a directory for files, and ports on 127.0.0.1.

    `origin_ports` are all of the origin's, for configs with `@EACH_PORT@`.
    """

    directory: Path
    port: int
    admin_port: int
    v1_port: int
    v2_port: int
    origin_ports: tuple[int, ...] = field(default=(), kw_only=True)

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

        return re.sub(r"@([A-Z0-9_]+)@", value, _EACH.sub(self._repeated, template))

    def _repeated(self, line: re.Match[str]) -> str:
        return "".join(line[0].replace("@EACH_PORT@", str(port)) for port in self.origin_ports)


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of traffic.

    `configs`: the directory below `workloads/`. `unit`: what CPU time is divided by.
    `connections` and `rate` (units/s of the open loop) may be changed from the command line.
    `stream`: empty for requests with answers, which are sent from the file `request`, with
    `users` different users and `body_bytes` of body besides the file's.
    `is_split`: a tenth of the users is the canary's, and `x-version` in the answer tells.
    `ports`: how many the origin listens on; the first two are `@V1_PORT@` and `@V2_PORT@`.
    `is_tls`: proxies speak TLS, with the certificate and key in `@DIR@/server.pem`.
    `is_fresh`: every request has a connection, and a handshake, of its own.
    """

    name: str
    configs: str
    peers: tuple[str, ...]
    unit: str = "request"
    connections: int = 32
    rate: int = 2000
    request: str = ""
    users: int = 1
    body_bytes: int = 0
    is_split: bool = False
    ports: int = 2
    is_tls: bool = False
    is_fresh: bool = False
    stream: Literal["", "sse", "websocket"] = ""

    @property
    def directory(self) -> Path:
        return _ROOT / self.configs

    @property
    def has_own_origin(self) -> bool:
        """An nginx as `origin.conf` says is the origin; otherwise `benchmarks.origin`."""
        return (self.directory / "origin.conf").exists()

    def render(self, places: Places) -> None:
        """Write the configs, filled in, to `places.directory`."""
        for template in sorted(self.directory.iterdir()):
            if template.suffix != ".http":
                text = places.fill(template.read_text())
                (places.directory / template.name).write_text(text)

    def requests(self) -> list[bytes]:
        """The bytes of one request for each user; none for streams."""
        if not self.request:
            return []
        text = (self.directory / self.request).read_text()
        return build_requests(text + "x" * self.body_bytes, self.users)

    def ready_request(self) -> bytes:
        """A request that is answered with 200 as soon as a proxy and the origin are up."""
        return self.requests()[0] if self.is_split else _READY


_RELAY_PEERS: Final = ("nginx", "haproxy", "envoy", "caddy")

WORKLOADS: Final = (
    # 4,096 users are enough for a split of 10 % to be within 1.5 points of it
    Workload(
        "json_canary",
        "json_canary",
        (*_RELAY_PEERS, "traefik", "aiohttp"),
        request="request.http",
        users=4096,
        is_split=True,
    ),
    Workload(
        "endpoints-100",
        "endpoints_100",
        ("nginx", "haproxy", "envoy"),
        request="request.http",
        users=4096,
        ports=100,
    ),
    # the same route with and without receipts: see the ratio of the two
    Workload("receipts", "receipts", ("plain",), request="request.http", users=4096),
    Workload("tls", "tls", ("nginx", "haproxy"), request="request.http", is_tls=True),
    Workload(
        "tls-handshakes",
        "tls",
        ("nginx", "haproxy"),
        unit="handshake",
        connections=1,
        request="request.http",
        is_tls=True,
        is_fresh=True,
    ),
    Workload(
        "upload-1MiB", "relay", _RELAY_PEERS, rate=100, request="upload.http", body_bytes=_MIB
    ),
    Workload("download-1MiB", "relay", _RELAY_PEERS, rate=100, request="download.http"),
    Workload(
        "sse", "relay", _RELAY_PEERS, unit="chunk", connections=200, rate=10_000, stream="sse"
    ),
    Workload(
        "websocket",
        "relay",
        _RELAY_PEERS,
        unit="message",
        connections=200,
        rate=5_000,
        stream="websocket",
    ),
)


def names() -> list[str]:
    """Every workload there is."""
    return [workload.name for workload in WORKLOADS]


def load(name: str) -> Workload:
    """Raises BenchmarkError when there is no workload of that name."""
    for workload in WORKLOADS:
        if workload.name == name:
            return workload
    raise BenchmarkError(f"no workload {name!r}, there are: {', '.join(names())}")


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
