"""The frozen Config: what the YAML means, as values. Nothing here reads files or knows lines.

A Config is built whole and never edited. Rules that concern one value stand on its type; rules
that span values (a route names a backend that exists) stand in the validators of `Config`.
Keys, types, defaults and docstrings here are also the JSON Schema and the reference page.
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from router.policies import POLICIES, Model, Options
from router.policies.single import SingleOptions
from router.units import Duration, Share, Size

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")
_HOST: Final = re.compile(r"(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\]")
_PATH: Final = re.compile(r"/[\x21\x22\x24-\x3e\x40-\x7e]*")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(
            f"{value!r} is not a name, use letters, digits, '.', '_' and '-', at most 63, "
            "starting with a letter or digit"
        )
    return value


def _header_name(value: str) -> str:
    if not _HEADER_NAME.fullmatch(value):
        raise ValueError(f"{value!r} is not a header name")
    return value.lower()


def _address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{value!r} is not an address, write host:port, like 0.0.0.0:8080")
    bare = host.removeprefix("[").removesuffix("]")
    if bare != "localhost":
        try:
            ipaddress.ip_address(bare)
        except ValueError:
            raise ValueError(
                f"{value!r} is not an address to listen on, write an IP address and a port, "
                "like 0.0.0.0:8080 or [::]:8080"
            ) from None
    return value


def _endpoint_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{value!r} is not a URL: {error}") from None
    if parts.scheme != "http":
        raise ValueError(f"{value!r} is not an endpoint, write http://host:port")
    if not parts.hostname or port == 0 or parts.username is not None or parts.query or parts.fragment:
        raise ValueError(f"{value!r} is not an endpoint, write http://host:port with nothing after it")
    if parts.path not in ("", "/"):
        raise ValueError(f"{value!r} has a path; targets are relayed byte for byte, so an endpoint has none")
    return value.rstrip("/")


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError:
        raise ValueError(f"{value!r} is not a network, write an address or a CIDR block, like 10.0.0.0/8") from None
    return value


Name = Annotated[str, AfterValidator(_name)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
Address = Annotated[str, AfterValidator(_address)]
EndpointUrl = Annotated[str, AfterValidator(_endpoint_url)]
Network = Annotated[str, AfterValidator(_network)]


class Admin(Model):
    """The admin API of the control process."""

    listen: Address = "127.0.0.1:9901"
    """Address of the admin API. Off loopback it needs a token."""
    token: Annotated[str, Field(min_length=16)] | None = None
    """Bearer token that every changing call must carry."""

    @model_validator(mode="after")
    def _token_off_loopback(self) -> "Admin":
        host = self.listen.rpartition(":")[0].removeprefix("[").removesuffix("]")
        if self.token is None and host != "localhost" and not ipaddress.ip_address(host).is_loopback:
            raise ValueError(
                f"the admin API on {self.listen} needs a token: set admin.token, or listen on 127.0.0.1"
            )
        return self


class Downstream(Model):
    """How clients are treated."""

    head_timeout: Duration = 10.0
    """From the first byte of a request to the end of its head."""
    idle_timeout: Duration = 75.0
    """How long a kept-alive connection may wait for its next request."""
    body_timeout: Duration = 60.0
    """Longest pause in a request body, or in a client's reading of a response."""
    head_bytes: Annotated[Size, Field(ge=1024, le=1024 * 1024)] = 32 * 1024
    """Largest request head."""
    headers: Annotated[int, Field(ge=8, le=1000)] = 100
    """Most header fields in a request."""
    body_bytes: Size = 1024 * 1024 * 1024
    """Largest request body."""


class Logging(Model):
    """What is written to standard error."""

    format: Literal["readable", "json"] = "readable"
    level: Literal["debug", "info", "warning", "error"] = "info"
    access_sample: Share = 0.0
    """Share of requests that get an access line."""


class Feedback(Model):
    """Rewards posted by clients."""

    path: Annotated[str, Field(pattern=r"^/-/[a-z0-9/_-]+$")] = "/-/feedback"
    """Path on the listener, below the reserved prefix `/-/`."""
    window: Duration = 3600.0
    """How long after the response a receipt is accepted."""
    key: Annotated[str, Field(min_length=32)] | None = None
    """Secret that signs receipts; by default made once and kept in the state store."""
    max_body: Size = 1024 * 1024
    """Largest feedback body."""
    max_items: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Most rewards in one body."""


class ClientHeaders(Model):
    """Headers that responses carry in the router's name."""

    variant: bool = True
    """`x-router-variant`: which variant answered."""
    route: bool = True
    """`x-router-route`: which route matched."""


class Endpoint(Model):
    """One replica of a backend."""

    url: EndpointUrl
    weight: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0
    """Relative share of the backend's requests."""


def _endpoint(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


class HealthCheck(Model):
    """An active check of every endpoint of a backend."""

    path: Annotated[str, Field(pattern=r"^/[!-~]*$")]
    interval: Annotated[Duration, Field(ge=0.1)] = 5.0
    timeout: Annotated[Duration, Field(gt=0)] = 1.0
    healthy_after: Annotated[int, Field(ge=1, le=100)] = 2
    """Successes in a row that make a failed endpoint healthy again."""
    unhealthy_after: Annotated[int, Field(ge=1, le=100)] = 3
    """Failures in a row that take an endpoint out."""


class Timeouts(Model):
    """How long an endpoint may take."""

    connect: Annotated[Duration, Field(gt=0)] = 1.0
    first_byte: Annotated[Duration, Field(gt=0)] = 60.0
    """From the request's last byte to the response's first."""
    idle: Annotated[Duration, Field(gt=0)] = 60.0
    """Longest pause between two pieces of a response, or of taking a request body."""


class Limits(Model):
    """Bounds on what one worker does to a backend."""

    connections: Annotated[int, Field(ge=1, le=65535)] = 512
    """Connections to one endpoint."""
    pending: Annotated[int, Field(ge=0, le=1_000_000)] = 1024
    """Requests waiting for a connection; one more is refused with 503."""


class Backend(Model):
    """One version of a model: a pool of endpoints that serve it."""

    endpoints: Annotated[
        tuple[Annotated[Endpoint, BeforeValidator(_endpoint, json_schema_input_type=str | Endpoint)], ...],
        Field(min_length=1),
    ]
    health: HealthCheck | None = None
    timeout: Timeouts = Timeouts()
    limits: Limits = Limits()
    keep_alive: Annotated[Duration, Field(gt=0)] = 30.0
    """How long an idle connection to an endpoint is kept. Below the server's own keep-alive time."""

    @model_validator(mode="after")
    def _distinct_endpoints(self) -> "Backend":
        repeated = _repeated(endpoint.url for endpoint in self.endpoints)
        if repeated:
            raise ValueError(f"endpoint {repeated[0]} is listed twice")
        return self


class HeaderMatch(Model):
    """A condition on one request header: exactly one of these."""

    exact: str | None = None
    prefix: Annotated[str, Field(min_length=1)] | None = None
    regex: "Regex | None" = None
    """Must match the whole value."""
    present: bool | None = None

    @model_validator(mode="after")
    def _one_condition(self) -> "HeaderMatch":
        if len(self.model_fields_set) != 1:
            raise ValueError("a header condition has exactly one of exact, prefix, regex, present")
        return self


def _header_match(value: object) -> object:
    return {"exact": value} if isinstance(value, str) else value


def _regex(value: str) -> str:
    try:
        re.compile(value.encode("utf-8"))
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from None
    return value


def _host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise ValueError(f"{value!r} is not a host, write a name, like api.example.org or *.example.org")
    return value.lower().rstrip(".")


def _path(value: str) -> str:
    if not _PATH.fullmatch(value):
        raise ValueError(
            f"{value!r} is not a path, write printable ASCII that starts with '/', without '?' or '#'"
        )
    if value.startswith("/-/"):
        raise ValueError("paths below /-/ belong to the router itself")
    return value


Regex = Annotated[str, AfterValidator(_regex)]
Host = Annotated[str, AfterValidator(_host)]
Path = Annotated[str, AfterValidator(_path)]
Method = Annotated[str, Field(pattern=r"^[A-Z][A-Z-]{0,31}$")]


class Match(Model):
    """Which requests a route takes; all conditions must hold."""

    host: Host | None = None
    """A name, or `*.suffix` for every name below it. Compared without port and case."""
    path: Path | None = None
    """A prefix when it ends in `/`, exact otherwise."""
    path_regex: Regex | None = None
    """Must match the whole path."""
    methods: Annotated[tuple[Method, ...], Field(min_length=1)] | None = None
    headers: (
        dict[
            HeaderName,
            Annotated[
                HeaderMatch,
                BeforeValidator(_header_match, json_schema_input_type=str | HeaderMatch),
            ],
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _one_path(self) -> "Match":
        if self.path is not None and self.path_regex is not None:
            raise ValueError("a match has path or path_regex, not both")
        return self


class Shadow(Model):
    """A copy of requests to a backend whose answers nobody gets."""

    backend: Name
    sample: Share
    """Share of requests that are copied."""
    max_body: Size = 1024 * 1024
    """Larger request bodies are not copied."""
    in_flight: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Copies in progress per worker; more are dropped and counted."""
    in_flight_bytes: Size = 16 * 1024 * 1024
    """Bytes of request bodies held for copies per worker."""
    timeout: Annotated[Duration, Field(gt=0)] = 5.0
    """A copy that takes longer is ended."""


if TYPE_CHECKING:
    AnyPolicy = Options
else:
    from typing import Union

    AnyPolicy = Annotated[Union[tuple(POLICIES.values())], Field(discriminator="type")]  # noqa: UP007 - built from the registry


class Route(Model):
    """A match with a policy, or with the one backend that answers."""

    name: Name
    match: Match = Match()
    backend: Name | None = None
    policy: AnyPolicy | None = None
    shadow: tuple[Shadow, ...] = ()
    salt: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Salts the hash of sticky units; by default the route's name."""
    headers: ClientHeaders = ClientHeaders()

    @model_validator(mode="after")
    def _one_of_backend_and_policy(self) -> "Route":
        if (self.backend is None) == (self.policy is None):
            raise ValueError("a route has exactly one of backend and policy")
        return self

    @property
    def options(self) -> Options:
        """The policy; a bare `backend:` is the policy `single`."""
        if self.policy is not None:
            return self.policy
        assert self.backend is not None  # noqa: S101 - held by _one_of_backend_and_policy
        return SingleOptions(backend=self.backend)


class Config(Model):
    """The whole file."""

    listen: Address = "0.0.0.0:8080"  # noqa: S104 - a router listens for the network
    admin: Admin = Admin()
    workers: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    """Data processes; auto is one per usable CPU."""
    state: Annotated[str, Field(pattern=r"^(sqlite://.+|memory:)$")] = (
        "sqlite:///var/lib/pointsman/state.db"
    )
    """Where what was learned is kept. Opened only when a route learns."""
    drain_timeout: Duration = 30.0
    """How long exchanges in flight may take to finish on SIGTERM."""
    pre_stop: Duration = 0.0
    """On SIGTERM, how long to go on accepting after readiness failed."""
    trusted_proxies: tuple[Network, ...] = ()
    """Peers whose `x-forwarded-*` headers are believed."""
    downstream: Downstream = Downstream()
    logging: Logging = Logging()
    feedback: Feedback = Feedback()
    backends: Annotated[dict[Name, Backend], Field(min_length=1)]
    routes: Annotated[tuple[Route, ...], Field(min_length=1)]


def _repeated(names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    return [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]  # add() returns None on purpose


CANNOT_CHANGE: Final = ("listen", "admin", "workers", "state")
"""Top-level keys that need a restart."""
