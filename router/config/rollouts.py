"""Rules of rollouts between mappings: what a guard judges exists, no endpoint is taken from others.

Works on the document, like `crosscheck.py`, which asks for these findings.
"""

from collections.abc import Iterator
from typing import Any, Final

from router.config.experiments import declared, valid_kpis
from router.config.kpis import HeaderSource, Kpi
from router.config.problems import Finding, Path, render_path
from router.config.references import options_of, references
from router.config.translate import nearest
from router.policies import Options
from router.rollouts.measured import DISTRIBUTIONS, RATES
from router.rollouts.options import measure_of

_GUARDS: Final = ("guard", "pre_guard")


def rollouts(backends: Any, routes: list[tuple[Path, dict[str, Any]]]) -> Iterator[Finding]:
    """Every finding about the rollouts of `routes`. Cost: linear in the document."""
    users: dict[str, list[Path]] = {}
    exchanging: list[tuple[Path, Options]] = []
    for path, route in routes:
        policy = route.get("policy")
        options = options_of(policy)
        yield from _kpis(policy, (*path, "policy"), declared(route), valid_kpis(route))
        for name, place in references(path, route, options):
            users.setdefault(name, []).append(place)
        if options is not None and options.exchanges_endpoints:
            exchanging.append((path, options))
    for path, options in exchanging:
        yield from _shared(path, options, users)
        yield from _unchecked(path, options, backends)


def _kpis(policy: Any, path: Path, names: list[str], kpis: dict[str, Kpi]) -> Iterator[Finding]:
    """A guard judges what is measured, or declared as a KPI of the route and fit to be judged."""
    known = (*RATES, *DISTRIBUTIONS, *names)
    for key in _GUARDS:
        guard = policy.get(key) if isinstance(policy, dict) else None
        bounds = guard.get("kpis") if isinstance(guard, dict) else None
        for bounded in bounds if isinstance(bounds, dict) else ():
            name, quantile = measure_of(str(bounded))
            place = (*path, key, "kpis", bounded)
            if name not in known:
                hint = nearest(name, known)
                yield Finding(place, f"nothing declares a KPI named {name!r}", hint, at_key=True)
            elif message := _unfit(name, kpis.get(name), quantile is not None):
                yield Finding(place, message, at_key=True)


def _unfit(name: str, kpi: Kpi | None, has_quantile: bool) -> str:
    """Why no guard can judge a KPI so; empty: it can. It counts feedback as it comes."""
    if kpi is None or name in (*RATES, *DISTRIBUTIONS):
        return ""
    if kpi.absent is not None:
        return (
            f"a guard counts feedback as it comes, but of {name} silence counts once its window "
            "is over: judge a KPI without absent, posted as 0 or 1 for every exposure"
        )
    if kpi.is_binary:
        return f"{name} is binary and has no quantiles, write {name}" if has_quantile else ""
    if isinstance(kpi.source, HeaderSource):
        return (
            f"of {name}, a number in a header, only sums are counted, and a guard has no use for "
            "them: make it binary, or post it as feedback"
        )
    if not kpi.is_less_better:
        return f"a guard asks how often {name} is too high, but its goal is max"
    if kpi.is_fed_back and kpi.limits[0] <= 0:
        return f"a guard needs {name} above 0, but its bounds begin at {kpi.limits[0]:g}"
    return "" if has_quantile else f"{name} is no rate, write {name}.p95"


def _shared(path: Path, options: Options, users: dict[str, list[Path]]) -> Iterator[Finding]:
    """A backend whose endpoints are taken out of use serves one policy."""
    own = (*path, "policy")
    for variant in options.variants():
        others = [place for place in users.get(variant.name, ()) if place[: len(own)] != own]
        for place in users.get(variant.name, ()):
            if others and place[: len(own)] == own:
                yield Finding(
                    place,
                    f"{options.kind} takes endpoints of {variant.name} out of use, also for "
                    f"{render_path(others[0])}",
                    "give that a backend of its own, with the same endpoints",
                )


def _unchecked(path: Path, options: Options, backends: Any) -> Iterator[Finding]:
    """Without a check an endpoint counts as healthy, so that nothing is waited for."""
    new = options.variants()[-1].name
    backend = backends.get(new) if isinstance(backends, dict) else None
    if isinstance(backend, dict) and backend.get("health") is None:
        message = f"{new} has no health check: its endpoints count as ready at once"
        yield Finding((*path, "policy"), message, is_warning=True)
