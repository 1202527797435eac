"""`backends:` what a backend is and how its endpoints are treated.

The frozen models of one backend; rules between backends and routes stand in `crosscheck.py`.
"""

from collections import Counter
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from router.config.balance import AnyBalance, Balance
from router.config.health import HealthCheck, Outlier
from router.config.retry import Hedge, Retry
from router.config.tls import UpstreamTls
from router.config.values import EndpointUrl, Whole
from router.strict import Model
from router.units import Duration, Share, Size, format_duration

_RESOLVE_MIN_S: Final = 0.1


class Endpoint(Model):
    """One replica of a backend."""

    url: EndpointUrl
    """`http://host:port` or `https://host:port`, without a path."""
    weight: Annotated[float, Field(strict=True, gt=0, le=1000, allow_inf_nan=False)] = 1.0
    """Relative share of the backend's requests."""


def _endpoint(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


def _resolve(seconds: float) -> float:
    if 0 < seconds < _RESOLVE_MIN_S:
        raise ValueError(f"expected 0 or at least {format_duration(_RESOLVE_MIN_S)}")
    return seconds


class Timeouts(Model):
    """How long an endpoint may take."""

    connect: Annotated[Duration, Field(gt=0)] = 1.0
    """From the attempt to connect to the connection."""
    first_byte: Annotated[Duration, Field(gt=0)] = 60.0
    """From the request's last byte to the response's first."""
    idle: Annotated[Duration, Field(gt=0)] = 60.0
    """Longest pause between two pieces of a response, or of taking a request body."""
    tunnel: Annotated[Duration, Field(gt=0)] = 600.0
    """Longest silence in both directions of an upgraded connection (WebSocket)."""


class Adaptive(Model):
    """Learning the number of requests at a time from the time to the response's first byte."""

    min: Annotated[Whole, Field(ge=1, le=100_000)] = 4
    """Never fewer than these at a time."""
    max: Annotated[Whole, Field(ge=1, le=100_000)] = 1000
    """Never more than these at a time."""
    tolerance: Annotated[float, Field(strict=True, ge=1, le=10, allow_inf_nan=False)] = 1.5
    """How many times its time without a queue a request may take before fewer are let through."""

    @model_validator(mode="after")
    def _in_order(self) -> "Adaptive":
        if self.max < self.min:
            raise ValueError(f"max ({self.max}) is less than min ({self.min})")
        return self


class Shed(Model):
    """When a backend counts as overloaded: clients leave unanswered, and answers are slow."""

    left: Annotated[Share, Field(gt=0)] = 0.2
    """The share of requests whose clients leave unanswered from which some are refused."""
    slower: Annotated[float, Field(strict=True, gt=1, le=100, allow_inf_nan=False)] = 3.0
    """How many times its usual time to the first byte the median takes, for some to be refused."""
    min: Annotated[Whole, Field(ge=1, le=100_000)] = 16
    """As many at a time are never refused."""


class Limits(Model):
    """Bounds on what one worker does to a backend, and takes from it."""

    connections: Annotated[Whole, Field(ge=1, le=65535)] = 512
    """Connections to one endpoint."""
    pending: Annotated[Whole, Field(ge=0, le=1_000_000)] = 1024
    """Requests that wait for a connection or for their turn; one more is refused with 503."""
    pending_timeout: Annotated[Duration, Field(gt=0)] = 5.0
    """How long a request may wait; then it is refused with 503."""
    in_flight: Annotated[Whole, Field(ge=0, le=1_000_000)] = 0
    """Requests at a time, over all endpoints; further ones wait. 0: any number."""
    adaptive: Adaptive | None = None
    """Learn how many at a time are good; further ones are refused at once with 503."""
    shed: Shed | None = Shed()
    """In overload that makes clients leave unanswered, refuse at once with 503 what would come too
    late; null: never. Not with `adaptive`, which sees to that."""
    head_bytes: Annotated[Size, Field(ge=1024, le=1024 * 1024)] = 64 * 1024
    """Largest response head."""
    headers: Annotated[Whole, Field(ge=8, le=1000)] = 200
    """Most header fields in a response."""


class Backend(Model):
    """One version of a model: a pool of endpoints that serve it."""

    endpoints: Annotated[
        tuple[
            Annotated[
                Endpoint, BeforeValidator(_endpoint, json_schema_input_type=EndpointUrl | Endpoint)
            ],
            ...,
        ],
        Field(min_length=1),
    ]
    """Replicas: URLs, or mappings of `url` and `weight`."""
    balance: AnyBalance = Balance()
    """How an endpoint is chosen for a request: a name, or a mapping."""
    slow_start: Duration = 0.0
    """How long an endpoint that comes up takes to get its whole weight."""
    health: HealthCheck | None = None
    """Active health checks; without them every endpoint counts as healthy."""
    outlier: Outlier | None = Outlier()
    """Ejection of endpoints whose requests fail; null: none."""
    panic_below: Share = 0.0
    """When the share of endpoints in use falls below this, those that are down or ejected are used
    too."""
    timeout: Timeouts = Timeouts()
    """How long an endpoint may take."""
    limits: Limits = Limits()
    """Bounds on what one worker does to this backend."""
    retry: Retry = Retry()
    """When a request is sent again."""
    hedge: Hedge | None = None
    """A second attempt beside a slow one; by default none."""
    keep_alive: Annotated[Duration, Field(gt=0)] = 30.0
    """How long an idle connection to an endpoint is kept. Keep it below the server's own time."""
    resolve: Annotated[Duration, AfterValidator(_resolve)] = 30.0
    """How often names of endpoints are looked up again, at least 100ms; 0: at each connect."""

    tls: UpstreamTls | None = None
    """How `https` endpoints are connected to; by default with the CAs of the system."""

    @model_validator(mode="after")
    def _tls_is_used(self) -> "Backend":
        if self.tls is not None and not self.has_tls:
            raise ValueError("tls is for https endpoints, this backend has none")
        return self

    @model_validator(mode="after")
    def _distinct_endpoints(self) -> "Backend":
        url, count = Counter(endpoint.url for endpoint in self.endpoints).most_common(1)[0]
        if count > 1:
            raise ValueError(f"endpoint {url} is listed twice")
        return self

    @property
    def has_tls(self) -> bool:
        """Whether any endpoint is `https`."""
        return any(endpoint.url.startswith("https:") for endpoint in self.endpoints)
