"""Rules between mappings: names that must exist or be unique, addresses that must differ.

Works on the document rather than on a Config, so that these mistakes are told together with those
that keep a Config from being built. What is broken is passed over: its own mistake is told.
"""

from collections.abc import Iterator
from typing import Any, Final

from pydantic import ValidationError

from router.config.experiments import experiments
from router.config.model import Admin, Config, Match
from router.config.problems import Finding, Path, render_path
from router.config.references import options_of, references
from router.config.rollouts import rollouts
from router.config.translate import nearest
from router.config.values import split_address

_IPV4_WILDCARD: Final = "0.0.0.0"  # noqa: S104 - compared with, not listened on
_IPV6_WILDCARD: Final = "::"


def crosscheck(document: Any) -> list[Finding]:
    """Every finding between mappings of `document`. Cost: linear in its size."""
    if not isinstance(document, dict):
        return []
    routes = document.get("routes")
    routes = routes if isinstance(routes, list) else []
    entries: list[tuple[Path, dict[str, Any]]] = [
        (("routes", i), route) for i, route in enumerate(routes) if isinstance(route, dict)
    ]
    return [
        *_addresses(document),
        *_route_names(entries),
        *_matches(entries),
        *_backends(document.get("backends"), entries, is_whole=len(entries) == len(routes)),
        *_client_certs(document.get("tls"), entries),
        *_unverified(document.get("backends")),
        *_notified(document.get("notify"), entries),
        *rollouts(document.get("backends"), entries),
        *experiments(document.get("feedback"), entries),
    ]


def _addresses(document: dict[str, Any]) -> Iterator[Finding]:
    """The listener and the admin API cannot share an address."""
    admin = document.get("admin")
    admin = admin if isinstance(admin, dict) else {}
    address = admin.get("listen", Admin.model_fields["listen"].default)
    listen = document.get("listen", Config.model_fields["listen"].default)
    try:
        (host, port), (other, other_port) = split_address(listen), split_address(address)
    except (ValueError, AttributeError):
        return
    if port and port == other_port and _overlap(host, other):
        path = ("admin", "listen") if "listen" in admin else ("listen",)
        yield Finding(path, f"the admin API and the listener are both on port {port}")


def _overlap(host: str, other: str) -> bool:
    hosts = {host.replace("localhost", "127.0.0.1"), other.replace("localhost", "127.0.0.1")}
    if len(hosts) == 1 or _IPV6_WILDCARD in hosts:  # on Linux :: also takes IPv4
        return True
    return _IPV4_WILDCARD in hosts and not any(":" in one for one in hosts)


def _route_names(routes: list[tuple[Path, dict[str, Any]]]) -> Iterator[Finding]:
    first: dict[str, Path] = {}
    for path, route in routes:
        name = route.get("name")
        if not isinstance(name, str):
            continue
        if name in first:
            message = f"the route name {name!r} is taken by {render_path(first[name])}"
            yield Finding((*path, "name"), message)
        first.setdefault(name, path)


def _notified(targets: Any, routes: list[tuple[Path, dict[str, Any]]]) -> Iterator[Finding]:
    """Who is told only of some routes names routes that exist."""
    names = [name for _, route in routes if isinstance(name := route.get("name"), str)]
    for i, target in enumerate(targets if isinstance(targets, list) else ()):
        wanted = target.get("routes") if isinstance(target, dict) else None
        for j, name in enumerate(wanted if isinstance(wanted, list) else ()):
            if isinstance(name, str) and name not in names:
                message = f"no route is named {name!r}"
                yield Finding(("notify", i, "routes", j), message, nearest(name, names))


def _matches(routes: list[tuple[Path, dict[str, Any]]]) -> Iterator[Finding]:
    """Of two routes with the same match the later gets nothing."""
    first: dict[str, Path] = {}
    for path, route in routes:
        try:
            match = Match.model_validate(route.get("match", {}))
        except ValidationError:
            continue
        methods = tuple(sorted(set(match.methods))) if match.methods else None
        headers = dict(sorted(match.headers.items())) if match.headers else None
        key = match.model_copy(update={"methods": methods, "headers": headers}).model_dump_json()
        if key in first:
            message = f"matches the same requests as {render_path(first[key])}, which gets them all"
            place = (*path, "match") if "match" in route else path
            yield Finding(place, message, is_warning=True)
        first.setdefault(key, path)


def _client_certs(tls: Any, routes: list[tuple[Path, dict[str, Any]]]) -> Iterator[Finding]:
    """Only a listener that asks for certificates is shown any."""
    if isinstance(tls, dict) and tls.get("client_auth") in ("optional", "required"):
        return
    for path, route in routes:
        match, policy = route.get("match"), route.get("policy")
        sticky = policy.get("sticky") if isinstance(policy, dict) else None
        for place, owner in (((*path, "match"), match), ((*path, "policy", "sticky"), sticky)):
            if isinstance(owner, dict) and owner.get("client_cert") is not None:
                hint = "set tls.client_auth to optional or required"
                yield Finding((*place, "client_cert"), "clients show no certificate", hint)


def _unverified(backends: Any) -> Iterator[Finding]:
    for name, backend in backends.items() if isinstance(backends, dict) else ():
        tls = backend.get("tls") if isinstance(backend, dict) else None
        if isinstance(tls, dict) and tls.get("verify") is False:
            message = "anyone on the way to these endpoints can read and change what is sent"
            yield Finding(("backends", name, "tls", "verify"), message, is_warning=True)


def _backends(
    backends: Any, routes: list[tuple[Path, dict[str, Any]]], is_whole: bool
) -> Iterator[Finding]:
    """Names of backends exist and are used. `is_whole`: `routes` are all routes."""
    if not isinstance(backends, dict):
        return
    used: set[str] = set()
    for path, route in routes:
        policy = route.get("policy")
        options = options_of(policy)
        is_whole &= options is not None or policy is None
        if options is not None:
            yield from (
                Finding((*path, "policy"), text, is_warning=True) for text in options.warnings()
            )
        for name, place in references(path, route, options):
            used.add(name)
            if name not in backends:
                yield Finding(place, f"no backend is named {name!r}", nearest(name, backends))
    if is_whole:
        for name in sorted(set(backends) - used):
            yield Finding(("backends", name), "no route uses it", at_key=True, is_warning=True)
