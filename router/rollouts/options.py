"""The YAML that rollouts share: guards and gates."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from router.rollouts.bounds import Bound, KpiBound, RateBound, TimeBound
from router.rollouts.measured import DISTRIBUTIONS, RATES
from router.strict import Model
from router.units import Duration, Share

SLOW_RATIO: Final = 1.1
"""A relative bound of a quantile fails when the new variant is beyond it more than so many times as
often as the old one is beyond its own quantile."""
KPIS_MAX: Final = 32
GATES_MAX: Final = 8
"""More conditions than anyone reads; each costs work every second."""

_KPI: Final = r"[a-z][a-z0-9_]{0,62}(\.p(50|90|95|99))?"
_URL: Final = r"https?://[A-Za-z0-9_.:\[\]-]+(/[!-~]*)?"
_TIMES: Final = ("p50", "p90", "p95", "p99")

Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


def _kpi(value: str) -> str:
    if not re.fullmatch(_KPI, value):
        raise ValueError(
            f"{value!r} is not a KPI, write the name of a rate, or of a distribution with the "
            "quantile that is bounded, like latency.p95"
        )
    return value


def _url(value: str) -> str:
    if not re.fullmatch(_URL, value):
        raise ValueError(f"{value!r} is not a URL, write http://host:port/path or https://...")
    return value


def measure_of(kpi: str) -> tuple[str, float | None]:
    """The measurement that a key of `kpis` is about, and its quantile (None: it is a rate)."""
    name, _, quantile = kpi.partition(".p")
    return name, float(quantile) / 100 if quantile else None


KpiName = Annotated[
    str, AfterValidator(_kpi), Field(json_schema_extra={"pattern": f"^(?:{_KPI})$"})
]
Url = Annotated[str, AfterValidator(_url), Field(json_schema_extra={"pattern": f"^{_URL}$"})]
GateName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


class Burst(Model):
    """Failures of the new variant that end a rollout at once, without statistics."""

    errors: Annotated[Count, Field(ge=2)] = 5
    """At least so many,"""
    share: Annotated[Share, Field(gt=0, lt=1)] = 0.5
    """and more than this share of its requests, and more than twice the old variant's share,"""
    within: Annotated[Duration, Field(ge=1, le=60)] = 10.0
    """in so long."""


class PrometheusQuery(Model):
    """An instant query whose value must lie below, or above, a number."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["below"]}, {"required": ["above"]}]}
    )

    url: Url
    """The server, like http://prometheus:9090."""
    query: Annotated[str, Field(min_length=1, max_length=4096)]
    """PromQL that yields one number."""
    below: Number | None = None
    """Passes while the value is below this."""
    above: Number | None = None
    """Passes while the value is above this."""

    @model_validator(mode="after")
    def _one_side(self) -> "PrometheusQuery":
        if (self.below is None) == (self.above is None):
            raise ValueError("a query has exactly one of below and above")
        return self


class AskedWebhook(Model):
    """A URL that is asked, and answers pass or fail."""

    url: Url
    """Gets a POST with the rollout as JSON."""
    secret: Annotated[str, Field(min_length=16, max_length=256)] | None = Field(
        default=None,
        repr=False,
        exclude=True,  # not of the policy's digest: a renewed secret starts no rollout over
    )
    """Signs the POST."""


class Gate(Model):
    """Somebody else who must agree: exactly one of `prometheus` and `webhook`."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["prometheus"]}, {"required": ["webhook"]}]}
    )

    name: GateName
    """What status, events and metrics call it."""
    prometheus: PrometheusQuery | None = None
    """A query that is made."""
    webhook: AskedWebhook | None = None
    """A service that is asked."""
    interval: Annotated[Duration, Field(ge=1, le=3600)] = 30.0
    """How often."""
    timeout: Annotated[Duration, Field(gt=0, le=60)] = 5.0
    """An answer that takes longer is an error."""
    on_error: Literal["hold", "fail", "pass"] = "hold"
    """What an error counts as. `hold`: nothing is known, the rollout waits."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Gate":
        if (self.prometheus is None) == (self.webhook is None):
            raise ValueError("a gate has exactly one of prometheus and webhook")
        return self


class Guard(Model):
    """Conditions on live measurements that pause a rollout or roll it back."""

    max_error_rate: RateBound | None = Bound(1.1, "x")
    """Most failed requests of the new variant; null: any."""
    max_abort_rate: RateBound | None = None
    """Most requests whose client left before the end."""
    max_truncated_rate: RateBound | None = None
    """Most responses that were cut after their head had gone to the client."""
    p50: TimeBound | None = None
    """Most of the median latency, to the last byte."""
    p90: TimeBound | None = None
    """Most of the latency's 90th percentile."""
    p95: TimeBound | None = Bound(1.1, "x")
    """Most of the latency's 95th percentile; null: any."""
    p99: TimeBound | None = None
    """Most of the latency's 99th percentile."""
    first_byte_p50: TimeBound | None = None
    """Most of the median time to the head of the response."""
    first_byte_p90: TimeBound | None = None
    """Most of its 90th percentile."""
    first_byte_p95: TimeBound | None = None
    """Most of its 95th percentile."""
    first_byte_p99: TimeBound | None = None
    """Most of its 99th percentile."""
    kpis: dict[KpiName, KpiBound] = Field(default_factory=dict, max_length=KPIS_MAX)
    """Most of other measurements: a rate by its name, a distribution as NAME.p95."""
    min_requests: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = 100
    """Of the new variant at each step before the guard passes."""
    confidence: Annotated[Share, Field(ge=0.8, le=0.9999)] = 0.99
    """Of a rollback: an equal variant is rolled back with at most the rest of the probability."""
    promote_confidence: Annotated[Share, Field(ge=0.5, le=0.9999)] = 0.95
    """Of a pass."""
    promote_ratio: Annotated[Number, Field(gt=SLOW_RATIO, le=100)] = 2.0
    """A pass shows that a rate is below so many times the old variant's."""
    negligible: Annotated[Share, Field(lt=0.5)] = 0.005
    """A rate that is shown to be below this needs no comparison: it passes; 0%: none is."""
    on_inconclusive: Literal["hold", "promote", "rollback"] = "hold"
    """What follows when the guard still neither passes nor fails after `max_wait`."""
    max_wait: Duration = 1800.0
    """How long after a step's hold to wait for evidence."""
    burst: Burst | None = Burst()
    """Failures that end the rollout at once; null: none do."""
    gates: Annotated[tuple[Gate, ...], Field(max_length=GATES_MAX)] = ()
    """Others who must agree."""

    def rates(self) -> Iterator[tuple[str, str, Bound]]:
        """`(key, measurement, bound)` of every bounded rate."""
        for key, name in (
            ("max_error_rate", "errors"),
            ("max_abort_rate", "aborts"),
            ("max_truncated_rate", "truncated"),
        ):
            if (bound := getattr(self, key)) is not None:
                yield key, name, bound
        for key, bound in self.kpis.items():
            name, quantile = measure_of(key)
            if quantile is None:
                yield key, name, bound

    def quantiles(self) -> Iterator[tuple[str, str, float, Bound]]:
        """`(key, measurement, quantile, bound)` of every bounded quantile."""
        for prefix, name in (("", "latency"), ("first_byte_", "first_byte")):
            for quantile in _TIMES:
                if (bound := getattr(self, prefix + quantile)) is not None:
                    yield prefix + quantile, name, float(quantile[1:]) / 100, bound
        for key, bound in self.kpis.items():
            name, share = measure_of(key)
            if share is not None:
                yield key, name, share, bound

    @model_validator(mode="after")
    def _kinds_fit(self) -> "Guard":
        for key, bound in self.kpis.items():
            name, quantile = measure_of(key)
            if quantile is None and name in DISTRIBUTIONS:
                raise ValueError(f"kpis.{key} has no quantile, write {name}.p95")
            if quantile is not None and name in RATES:
                raise ValueError(f"kpis.{key}: {name} is a rate and has no quantiles, write {name}")
            if quantile is None and bound.unit not in ("x", "%"):
                raise ValueError(f"kpis.{key}: {bound} is no bound of a rate, write 1% or 1.25x")
            if quantile is not None and bound.unit == "%":
                raise ValueError(
                    f"kpis.{key}: {bound} is no bound of a quantile, write 500ms, 7 or 1.2x"
                )
        return self

    @model_validator(mode="after")
    def _bounds_agree(self) -> "Guard":
        for key, _, bound in self.rates():
            if bound.is_ratio and bound.value >= self.promote_ratio:
                raise ValueError(
                    f"{key} allows {bound}, but promote_ratio is {self.promote_ratio:g}: a pass "
                    "shows a ratio below promote_ratio, which must be larger than what is allowed"
                )
        for prefix in ("", "first_byte_"):
            given = [(prefix + one, getattr(self, prefix + one)) for one in _TIMES]
            fixed = [(key, bound) for key, bound in given if bound and not bound.is_ratio]
            for (low, bound), (high, other) in pairwise(fixed):
                if other.value < bound.value:
                    raise ValueError(f"{high} allows {other}, which is less than {low}, {bound}")
        return self

    @model_validator(mode="after")
    def _says_something(self) -> "Guard":
        names = [gate.name for gate in self.gates]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two gates are named {twice!r}")
        if not (names or self.burst or any(self.rates()) or any(self.quantiles())):
            raise ValueError("a guard without any condition guards nothing; remove it")
        return self
