"""Rules of rollouts between mappings: what a guard judges exists, no endpoint is taken from others.

Works on the document, like `crosscheck.py`, which asks for these findings.
"""

from collections.abc import Iterator
from typing import Any, Final

from router.config.experiments import declared
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
        yield from _unknown_kpis(policy, (*path, "policy"), declared(route))
        for name, place in references(path, route, options):
            users.setdefault(name, []).append(place)
        if options is not None and options.exchanges_endpoints:
            exchanging.append((path, options))
    for path, options in exchanging:
        yield from _shared(path, options, users)
        yield from _unchecked(path, options, backends)


def _unknown_kpis(policy: Any, path: Path, names: list[str]) -> Iterator[Finding]:
    """A guard judges what is measured, or declared as a KPI of the route."""
    known = (*RATES, *DISTRIBUTIONS, *names)
    for key in _GUARDS:
        guard = policy.get(key) if isinstance(policy, dict) else None
        kpis = guard.get("kpis") if isinstance(guard, dict) else None
        for kpi in kpis if isinstance(kpis, dict) else ():
            name = measure_of(str(kpi))[0]
            if name not in known:
                hint = nearest(name, known)
                message = f"nothing declares a KPI named {name!r}"
                yield Finding((*path, key, "kpis", kpi), message, hint, at_key=True)


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
