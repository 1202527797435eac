"""`canary`: a small, sticky share of units gets the new version; everyone else the stable one."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, model_validator

from router.policies.base import Assignment, Options, Scope, Variant, register
from router.policies.override import Override
from router.policies.sticky import Sticky
from router.policies.weighted import Plan, replaced
from router.units import Share, format_share

WEIGHT_LIMIT: Final = 0.5
WEIGHT_WARNING: Final = 0.35


def _canary_weight(value: float) -> float:
    if value > WEIGHT_LIMIT:
        raise ValueError(
            f"{format_share(value)} is more than {format_share(WEIGHT_LIMIT)}: past that, promote "
            "(make the canary the stable version)"
        )
    return value


@register
class CanaryOptions(Options):
    """A small, sticky share of units gets the new version; everyone else the stable one."""

    type: Literal["canary"] = "canary"
    stable: str
    """The backend that serves today, and serves every request without a unit."""
    canary: str
    """The backend on trial."""
    weight: Annotated[Share, AfterValidator(_canary_weight)]
    """Share of units that get the canary, at most 50%."""
    sticky: Sticky
    """What an assignment sticks to."""
    override: Override | None = None
    """A header that chooses the variant: `always` (canary), `never` (stable), or its name."""

    @model_validator(mode="after")
    def _two_backends(self) -> "CanaryOptions":
        if self.stable == self.canary:
            raise ValueError(f"stable and canary are the same backend, {self.stable}")
        return self

    def variants(self) -> tuple[Variant, ...]:
        return Variant(self.stable, 1.0 - self.weight), Variant(self.canary, self.weight)

    def build(self, scope: Scope) -> Assignment:
        return Plan(
            variants=replaced(self.variants(), scope.weights),
            sticky=self.sticky,
            override=self.override,
            words={"always": self.canary, "never": self.stable},
            unidentified=self.stable,
        ).build(scope)

    def fallback(self, variant: str) -> str | None:
        return self.stable if variant == self.canary else None

    def warnings(self) -> tuple[str, ...]:
        if self.weight <= WEIGHT_WARNING:
            return ()
        return (
            f"a canary weight of {format_share(self.weight)} is more than "
            f"{format_share(WEIGHT_WARNING)}: that many users meet a version on trial",
        )
