"""`backends:` what a backend is and how its endpoints are treated.

The frozen models of one backend; rules between backends and routes stand in `crosscheck.py`.
"""

from collections import Counter
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from router.config.values import EndpointUrl, Whole
from router.policies import Model
from router.units import Duration, Size


class Endpoint(Model):
    """One replica of a backend."""

    url: EndpointUrl
    """`http://host:port`, without a path."""
    weight: Annotated[float, Field(strict=True, gt=0, le=1000, allow_inf_nan=False)] = 1.0
    """Relative share of the backend's requests."""


def _endpoint(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


class HealthCheck(Model):
    """An active check of every endpoint of a backend."""

    path: Annotated[str, Field(pattern=r"^/[!-~]*$")]
    """Target of the GET request; 200 to 399 is a success."""
    interval: Annotated[Duration, Field(ge=0.1)] = 5.0
    """From one check of an endpoint to its next."""
    timeout: Annotated[Duration, Field(gt=0)] = 1.0
    """An answer that takes longer is a failure."""
    healthy_after: Annotated[Whole, Field(ge=1, le=100)] = 2
    """Successes in a row that make a failed endpoint healthy again."""
    unhealthy_after: Annotated[Whole, Field(ge=1, le=100)] = 3
    """Failures in a row that take an endpoint out."""


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


class Limits(Model):
    """Bounds on what one worker does to a backend, and takes from it."""

    connections: Annotated[Whole, Field(ge=1, le=65535)] = 512
    """Connections to one endpoint."""
    pending: Annotated[Whole, Field(ge=0, le=1_000_000)] = 1024
    """Requests waiting for a connection; one more is refused with 503."""
    pending_timeout: Annotated[Duration, Field(gt=0)] = 5.0
    """How long a request may wait for a connection; then it is refused with 503."""
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
    health: HealthCheck | None = None
    """Active health checks; without them every endpoint counts as healthy."""
    timeout: Timeouts = Timeouts()
    """How long an endpoint may take."""
    limits: Limits = Limits()
    """Bounds on what one worker does to this backend."""
    keep_alive: Annotated[Duration, Field(gt=0)] = 30.0
    """How long an idle connection to an endpoint is kept. Keep it below the server's own time."""

    @model_validator(mode="after")
    def _distinct_endpoints(self) -> "Backend":
        url, count = Counter(endpoint.url for endpoint in self.endpoints).most_common(1)[0]
        if count > 1:
            raise ValueError(f"endpoint {url} is listed twice")
        return self
