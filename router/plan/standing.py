"""How each route stands: by a config alone, or by what a running router tells of itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from router.config.model import Config, Route
from router.errors import PointsmanError
from router.messages import VariantState
from router.policies import Assignment, Options, Scope, Variant
from router.policies.base import digest_of
from router.policies.sticky import Sticky
from router.policies.weighted import Plan as Weighted
from router.rollouts.plan import Plan


class PlanError(PointsmanError):
    """How a router stands cannot be understood; the message is for the operator."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a route stands.

    `at`: where its rollout is, for people; empty when that is not known, or there is none.
    `digest`: of the rollout's policy; empty without a rollout. `options` and `plan` are those of
    the config; a running router does not tell them, and `plan` is None without a rollout. `pair`:
    its old and new variant. `phase`: of a running router's rollout.
    """

    name: str
    policy: str
    salt: str
    sticky: Sticky | None
    variants: tuple[Variant, ...]
    at: str = ""
    digest: str = ""
    options: Options | None = None
    plan: Plan | None = None
    pair: tuple[str, str] | None = None
    phase: str = ""

    @property
    def weights(self) -> dict[str, float]:
        return {variant.name: variant.weight for variant in self.variants}

    def assignment(self, weights: Mapping[str, float]) -> Assignment:
        """As it is built for traffic; of a running router's route from what all are made of."""
        scope = Scope(self.name, self.salt, _no_unit, weights)
        if self.options is not None:
            return self.options.build(scope)
        variants = (Variant(v.name, weights.get(v.name, v.weight), v.state) for v in self.variants)
        return Weighted(tuple(variants), self.sticky).build(scope)


def standings(config: Config) -> dict[str, Standing]:
    """Route -> how it stands by the config alone, which is as it begins."""
    return {route.name: standing(route, config) for route in config.routes}


def standing(route: Route, config: Config) -> Standing:
    """How one route of `config` stands as it begins."""
    options = route.options
    plan = options.rollout(config.pools)
    sticky = getattr(options, "sticky", None)  # the kinds that know it have it as a key
    return Standing(
        name=route.name,
        policy=options.kind,
        salt=route.name if route.salt is None else route.salt,
        sticky=sticky if isinstance(sticky, Sticky) else None,
        variants=options.variants(),
        digest="" if plan is None else digest_of(options, config.pools),
        options=options,
        plan=plan,
        pair=None if plan is None else (plan.old, plan.new),
    )


def standings_from(status: Mapping[str, Any]) -> dict[str, Standing]:
    """Route -> how it stands by the `/status` of a running router.

    Raises:
        PlanError: it is the status of another version of the router.
    """
    try:
        return {route["name"]: _reported(route) for route in status["routes"]}
    except (KeyError, TypeError, ValueError) as error:
        raise PlanError(
            f"the router's status is not that of this version ({error!r}); "
            "--offline OLD.yaml compares two files"
        ) from error


def _reported(route: Mapping[str, Any]) -> Standing:
    rollout, sticky = route["rollout"], route["sticky"]
    return Standing(
        name=route["name"],
        policy=route["policy"],
        salt=route["salt"],
        sticky=None if sticky is None else Sticky.model_validate(sticky),
        variants=tuple(
            Variant(one["name"], float(one["weight"]), VariantState(one["state"]))
            for one in route["variants"]
        ),
        at="" if rollout is None else f"{rollout['phase']}, at {rollout['at']}",
        digest="" if rollout is None else rollout["digest"],
        pair=None if rollout is None else (rollout["old"], rollout["new"]),
        phase="" if rollout is None else rollout["phase"],
    )


def _no_unit() -> str:
    """No unit is issued here: every request that is asked about has one."""
    return ""
