"""What the policies share that move traffic from an old variant to a new one in steps.

Owns the keys they have in common and the small values that plans are made of. It must not know how
a rollout is run: a plan is all that leaves a policy.
"""

from collections.abc import Iterable
from math import inf
from typing import Annotated, Final, Literal

import yaml
from pydantic import Field

from router.policies.base import Options, Variant
from router.rollouts.options import Guard
from router.rollouts.plan import Place, Stage
from router.strict import mistake_at
from router.units import Duration

Start = Literal["auto", "manual"]

_ROUNDED_TO: Final = 12
"""Decimals of the old variant's share: 1 - 0.9 is not 0.1."""


class Stepped(Options):
    """The keys that every rollout has."""

    guard: Guard | None = None
    """Conditions on live measurements of the new version; one that fails rolls back."""
    start: Start = "auto"
    """auto: as soon as the new version is ready. manual: when a person says so."""
    ready_timeout: Annotated[Duration, Field(gt=0)] = 600.0
    """How long a step may wait for endpoints before the rollout is given up."""
    revision: Annotated[str, Field(max_length=200)] = ""
    """Free text; another one begins a new rollout, as to try again what was rolled back."""

    @property
    def is_measured(self) -> bool:
        return True


def alone(key: str, guard: Guard | None, hint: str) -> Guard | None:
    """The guard at `key` where the old version gets no traffic beside the new one.

    Conditions that compare the two have no meaning there: the defaults that do are left out.

    Raises:
        ValidationError: one is written; `hint` says what else would help.
    """
    if guard is None:
        return None
    bounds = [*((name, bound) for name, _, bound in guard.rates())]
    bounds += ((name, bound) for name, _, _, bound in guard.quantiles())
    relative = {name: bound for name, bound in bounds if bound.is_ratio}
    for name, bound in relative.items():
        if name in guard.kpis or name in guard.model_fields_set:
            path = (key, "kpis", name) if name in guard.kpis else (key, name)
            raise mistake_at(
                path,
                f"{bound} compares with the old version, which gets no traffic while the new one "
                f"does: write an absolute bound{hint}",
            )
    return guard.model_copy(update=dict.fromkeys(relative))


def weights(old: str, new: str, share: float) -> dict[str, float]:
    """`share` for the new variant, the rest for the old one."""
    return {old: round(1.0 - share, _ROUNDED_TO), new: share}


def at_rest(old: str, new: str) -> tuple[Variant, ...]:
    """The variants before the rollout: all traffic is the old one's."""
    return Variant(old, 1.0), Variant(new, 0.0)


def stage(old: str, new: str, share: float, idle: Iterable[Place] = ()) -> Stage:
    """A stage at which the new variant has `share`, and `idle` endpoints get nothing new."""
    return Stage(weights(old, new, share), frozenset(idle))


def edit(new: str) -> str:
    """The policy, in one line of YAML, that says what a promoted rollout came to."""
    policy = {"type": "single", "backend": new}
    text = yaml.safe_dump(policy, default_flow_style=True, sort_keys=False, width=inf)
    return f"policy: {text.strip()}"


def by_the_clock(what: str) -> str:
    """The warning about a rollout that nothing but time holds back."""
    return f"{what} no guard: it moves by the clock alone, whatever the new version answers"
