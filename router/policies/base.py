"""What every policy is made of, and the table of policy kinds.

A policy is an assignment over weights, and a controller that moves the weights. One file a kind:
its options (a pydantic model, which is also its YAML schema), its assignment, its learner.
Policies are pure: no I/O, no clock, no global random generator; what is random is passed in.

Adding a kind: write one module with a class decorated `@register`, import it in `__init__.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol, TypeVar

from router.messages import Decision, Request, VariantState
from router.strict import Model


@dataclass(frozen=True, slots=True)
class Variant:
    """A backend taking part in a policy. Its name is the backend's name."""

    name: str
    weight: float
    state: VariantState = VariantState.ACTIVE


@dataclass(frozen=True, slots=True)
class Scope:
    """What an assignment is built with.

    `salt` salts hashes (the route's `salt`, by default its name). `mint` returns a fresh unit
    (32 hex digits) for a cookie. `weights`, by variant name, replace those of the options.
    """

    route: str
    salt: str
    mint: Callable[[], str]
    weights: Mapping[str, float] | None = None


class Assignment(Protocol):
    """The built policy: immutable, replaced as a whole when weights change."""

    @property
    def weights(self) -> Mapping[str, float]:
        """Variant -> share of new units, summing to 1."""
        ...

    def assign(self, request: Request, u: float) -> Decision:
        """Choose a variant; `u` is uniform in [0, 1). Never raises on any request."""
        ...


class Learner(Protocol):
    """A controller fed by rewards. Deterministic: same observations, same weights."""

    def observe(self, variant: str, reward: float) -> None:
        """Count one reward in [0, 1]; a variant that is no longer known is ignored."""
        ...

    def weights(self) -> dict[str, float]:
        """Variant -> weight, summing to 1 (within 1e-6)."""
        ...

    def summary(self) -> dict[str, dict[str, float]]:
        """Variant -> what was learned, for people: rewards, mean, probability of being best."""
        ...

    def dump(self) -> dict[str, Any]:
        """Everything learned, as JSON-able data keyed by variant name, with a `version`."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a `dump`; variants it does not name start fresh, ones we lack are kept.

        Raises:
            ValueError: `state` has a `version` this code does not know, or is not a dump.
        """
        ...


class Options(Model):
    """A policy's own YAML. Subclasses declare `type: Literal["..."]` and are registered."""

    kind: ClassVar[str]

    def variants(self) -> tuple[Variant, ...]:
        """Every variant with its configured weight (summing to 1) and state, in YAML order."""
        raise NotImplementedError

    def build(self, scope: Scope) -> Assignment:
        """Compile for traffic. Cost may be anything; `assign` must be cheap."""
        raise NotImplementedError

    def fallback(self, variant: str) -> str | None:
        """The variant that answers when `variant` has no healthy endpoint, or None: nobody does."""
        return None

    def learner(self) -> Learner | None:
        """A fresh controller fed by rewards, or None: then the route gives no receipts."""
        return None

    def warnings(self) -> tuple[str, ...]:
        """What `pointsman check` should point out though it is allowed."""
        return ()


POLICIES: Final[dict[str, type[Options]]] = {}
"""Policy kind -> its options. Filled at import by `register`, read-only afterwards."""


_OptionsType = TypeVar("_OptionsType", bound=type[Options])


def register(options: _OptionsType) -> _OptionsType:
    """Class decorator: add a policy kind under the value of its `type` field.

    Raises:
        ValueError: the kind is registered already.
    """
    declared: type[Options] = options
    kind: str = declared.model_fields["type"].default
    if kind in POLICIES:
        raise ValueError(f"policy kind {kind!r} is registered twice")
    options.kind = kind
    POLICIES[kind] = options
    return options
