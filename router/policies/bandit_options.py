"""The parts of a bandit's YAML: how it warms up, what makes it forget, what it must keep."""

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from router.bandits.evidence import CHUNK_REWARDS
from router.policies.conditions import Conditions
from router.policies.segments import SegmentName
from router.strict import Model
from router.units import Duration, Share, parse_share

CONSTRAINTS_MAX: Final = 8

Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]


def _min_share(value: object) -> object:
    return value if value == "auto" else parse_share(value)


MinShare = Annotated[
    float | Literal["auto"],
    BeforeValidator(_min_share),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": "auto"},
                {"type": "string", "pattern": r"^([0-9]+(?:\.[0-9]+)?)%$"},
                {"type": "number", "minimum": 0, "maximum": 1},
            ],
            "description": "auto, or a share: 2% or 0.02",
        }
    ),
]


class WarmUp(Model):
    """How a variant that joins others is held back."""

    rewards: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = 100
    """Rewards after which a variant has settled."""
    newcomer: Share = 0.1
    """Most traffic of one that has not, among others that have."""


class ChangeOptions(Model):
    """When a variant has changed, so that its older rewards are forgotten."""

    window: Annotated[int, Field(strict=True, ge=10 * CHUNK_REWARDS, le=20_000)] = 2000
    """How many of a variant's latest rewards are searched."""
    z: Annotated[float, Field(ge=2.0, le=20.0)] = 3.8
    """Standard deviations between before and after."""
    min: Count = 30
    """Fewest rewards before and after."""


class Constraint(Model):
    """What a variant must keep to get traffic; exactly one bound."""

    kpi: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    """What is bounded: errors, latency, or a KPI of the route."""
    max: Share | None = None
    """Largest share of requests: of those that failed, or for which a binary KPI is 1."""
    p95: Annotated[Duration, Field(gt=0)] | None = None
    """Largest 95th percentile."""
    p99: Annotated[Duration, Field(gt=0)] | None = None
    """Largest 99th percentile."""
    over: Annotated[Duration, Field(ge=1)] = 60.0
    """Requests count half after so long."""

    @model_validator(mode="after")
    def _one_bound(self) -> "Constraint":
        if sum(bound is not None for bound in (self.max, self.p95, self.p99)) != 1:
            raise ValueError("give exactly one of max, p95 and p99")
        return self

    @property
    def slower_than_s(self) -> float | None:
        """The time beyond which a request is bad, or None: the KPI itself says so."""
        return self.p95 if self.p95 is not None else self.p99

    @property
    def share(self) -> float:
        """Largest share of bad requests."""
        if self.max is not None:
            return self.max
        return 0.05 if self.p95 is not None else 0.01


class BanditSegment(Model):
    """Requests that are learned of by themselves."""

    name: SegmentName | None = None
    """In reports, metrics and receipts; by default segment-1, segment-2 and so on."""
    when: Conditions
    """Which requests: one condition, or a list of which all must hold."""
