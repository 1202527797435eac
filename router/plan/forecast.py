"""What becomes of each rollout when a config is loaded.

1. A rollout is told from another by the digest of its policy. One whose digest stays goes on with
   the weights that it has. One that is promoted stays so as long as its pair of versions does. Any
   other begins with all traffic on its old version.
2. A running router tells where a rollout is. Of a file alone that is not known, so every place that
   matters is told: before the first step, at the last one, and after promotion.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from router.config.diff import compare_policies
from router.config.model import Config
from router.plan.moves import UNITS, Moves, Side, moves_between
from router.plan.standing import Standing, standing
from router.rollouts.plan import Plan
from router.rollouts.state import Phase
from router.units import format_share


class Fate(StrEnum):
    """What becomes of a route's rollout."""

    STARTS = "starts"
    STARTS_OVER = "starts over"
    MAY_STAY = "starts over (or stays promoted, if it is)"
    STAYS = "stays promoted"
    GOES_ON = "goes on"
    DROPPED = "is dropped"


@dataclass(frozen=True, slots=True)
class Case:
    """What moves at once if the rollout is at `when`; empty: it is known where it is."""

    when: str
    moves: Moves


@dataclass(frozen=True, slots=True)
class Forecast:
    """What becomes of one route.

    `fate` is None without a rollout before and after. `at`: where it is. `steps`: the shares that
    the new version gets one by one once it starts, which `is_manual` leaves to a person.
    """

    route: str
    fate: Fate | None
    why: str
    at: str = ""
    is_new: bool = False
    cases: tuple[Case, ...] = ()
    steps: tuple[float, ...] = ()
    is_manual: bool = False

    def to_json(self) -> dict[str, Any]:
        """The same as JSON-able data."""
        return asdict(self)


def forecast(before: Mapping[str, Standing], new: Config) -> tuple[Forecast, ...]:
    """What becomes of every route that has a rollout, or whose units move: in `new`'s order.

    Cost: about 0.1 s for each sticky route whose assignment changes.
    """
    found = [_forecast(before.get(route.name), standing(route, new)) for route in new.routes]
    kept = {route.name for route in new.routes}
    found += (
        Forecast(name, Fate.DROPPED, "the route is removed", old.at, is_new=True)
        for name, old in before.items()
        if name not in kept and old.digest
    )
    return tuple(one for one in found if one.fate is not None or one.cases)


def _forecast(before: Standing | None, after: Standing) -> Forecast:
    fate = _fate(before, after)
    plan = after.plan if fate in (Fate.STARTS, Fate.STARTS_OVER, Fate.MAY_STAY) else None
    return Forecast(
        route=after.name,
        fate=fate,
        why=_why(fate, before, after),
        at="" if before is None else before.at,
        is_new=before is None,
        cases=() if before is None else tuple(_cases(fate, before, after)),
        steps=() if plan is None else _steps(plan),
        is_manual=plan is not None and not plan.starts_by_itself,
    )


def _fate(before: Standing | None, after: Standing) -> Fate | None:
    if before is None or not before.digest:
        return Fate.STARTS if after.digest else None
    if not after.digest:
        return Fate.DROPPED
    if before.digest == after.digest:
        return Fate.GOES_ON
    if before.pair != after.pair or before.phase not in ("", Phase.PROMOTED):
        return Fate.STARTS_OVER
    return Fate.STAYS if before.phase else Fate.MAY_STAY


def _why(fate: Fate | None, before: Standing | None, after: Standing) -> str:
    if before is None:
        return "the route is new"
    if fate is Fate.GOES_ON:
        return "its policy stays"
    if fate is Fate.DROPPED:
        return f"the policy becomes {after.policy}, which has none"
    if before.options is not None and after.options is not None:
        changes = compare_policies(after.name, before.options, after.options)
        said = "; ".join(change.sentence for change in changes)
        return said or "the endpoints that it exchanges change"
    is_exchange = after.options is not None and after.options.exchanges_endpoints
    return "the policy changes" + (", or its endpoints" if is_exchange else "")


def _steps(plan: Plan) -> tuple[float, ...]:
    """The shares of the new version that differ."""
    shares = (step.stage.weights[plan.new] for step in (*plan.steps, plan.final))
    return tuple(dict.fromkeys(shares))


def _cases(fate: Fate | None, before: Standing, after: Standing) -> Iterator[Case]:
    for when, weights in _places(before):
        weights_after = _weights_after(fate, before, after, weights)
        old = Side(before, before.assignment(weights))
        new = Side(after, after.assignment(weights_after))
        moves = moves_between(old, new)
        if moves.share or moves.note:
            yield Case(when, moves)


def _places(before: Standing) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Where its rollout may be, and the weights there."""
    plan = before.plan
    if plan is None:
        yield "", before.weights
        return
    yield "before its first step", plan.rest.weights
    if plan.steps and plan.steps[-1].stage.weights != plan.final.stage.weights:
        weights = plan.steps[-1].stage.weights
        yield f"at its last step ({format_share(weights[plan.new])})", weights
    yield "promoted", plan.final.stage.weights


def _weights_after(
    fate: Fate | None, before: Standing, after: Standing, weights: Mapping[str, float]
) -> Mapping[str, float]:
    """The weights right after the reload. What goes on, and what was learned, keeps its own."""
    is_learned = after.options is not None and after.options.learner() is not None
    is_kept = is_learned and (before.policy, set(weights)) == (after.policy, set(after.weights))
    is_promoted = before.plan is not None and weights == before.plan.final.stage.weights
    if after.plan is not None and (fate is Fate.STAYS or (fate is Fate.MAY_STAY and is_promoted)):
        return after.plan.final.stage.weights
    return weights if fate is Fate.GOES_ON or is_kept else after.weights


# text


def render(forecasts: tuple[Forecast, ...]) -> str:
    """Lines for people, without a newline at the end."""
    lines = [line for one in forecasts for line in _lines(one)]
    return "\n".join(lines) or "no rollout would change, and no unit would move"


def _lines(one: Forecast) -> Iterator[str]:
    at = f" ({one.at})" if one.at else ""
    fate = "has no rollout" if one.fate is None else f"its rollout {one.fate}{at}: {one.why}"
    yield f"{one.route}: {fate}"
    if not one.cases and not one.is_new:
        yield "  no unit moves"
    for case in one.cases:
        yield f"  {f'if it is {case.when}: ' if case.when else ''}{_sentence(case.moves)}"
    if one.steps:
        shares = ", ".join("all" if share == 1 else format_share(share) for share in one.steps)
        then = "once a person starts it" if one.is_manual else "then"
        yield f"  {then} the new version gets {shares}"


def _sentence(moves: Moves) -> str:
    note = f" ({moves.note})" if moves.note else ""
    if moves.of == "requests":
        names = dict.fromkeys((*moves.before, *moves.after))
        shares = ", ".join(
            f"{name} {_share(moves.before, name)} -> {_share(moves.after, name)}" for name in names
        )
        return f"{format_share(moves.share)} of requests get another variant{note}: {shares}"
    within = f" (±{moves.error * 100:.2f}%, of {UNITS})" if moves.error else ""
    flows = ", ".join(f"{format_share(one.share)} {one.old} -> {one.new}" for one in moves.flows)
    return f"{format_share(moves.share)} of units move{within}{note}: {flows}"


def _share(weights: Mapping[str, float], name: str) -> str:
    return format_share(weights.get(name, 0.0))
