"""Rules between mappings: names that must exist or be unique, addresses that must differ.

Works on the document rather than on a Config, so that these mistakes are told together with those
that keep a Config from being built. What is broken is passed over: its own mistake is told.
"""

from collections.abc import Iterator
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

from router.config.model import Admin, Config, Match
from router.config.problems import Finding, Path, render_path
from router.config.translate import nearest
from router.config.values import split_address
from router.policies import POLICIES, Options

Reference = tuple[str, Path]
"""The name of a backend, and where it is mentioned."""

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
        options = _options(policy)
        is_whole &= options is not None or policy is None
        if options is not None:
            yield from (
                Finding((*path, "policy"), text, is_warning=True) for text in options.warnings()
            )
        for name, place in _references(path, route, options):
            used.add(name)
            if name not in backends:
                yield Finding(place, f"no backend is named {name!r}", nearest(name, backends))
    if is_whole:
        for name in sorted(set(backends) - used):
            yield Finding(("backends", name), "no route uses it", at_key=True, is_warning=True)


def _references(path: Path, route: dict[str, Any], options: Options | None) -> Iterator[Reference]:
    backend, policy, shadows = route.get("backend"), route.get("policy"), route.get("shadow")
    if isinstance(backend, str):
        yield backend, (*path, "backend")
    mentioned = list(_mentioned(policy, (*path, "policy")))
    if options is not None:
        names = {variant.name for variant in options.variants()}
        mentioned = [one for one in mentioned if one[0] in names]
    yield from mentioned
    for i, shadow in enumerate(shadows if isinstance(shadows, list) else ()):
        if isinstance(shadow, dict) and isinstance(shadow.get("backend"), str):
            yield shadow["backend"], (*path, "shadow", i, "backend")


def _options(policy: Any) -> Options | None:
    """The options of a policy, or None when it is none or has mistakes of its own."""
    kind = policy.get("type") if isinstance(policy, dict) else None
    if not isinstance(kind, str) or kind not in POLICIES:
        return None
    try:
        return POLICIES[kind].model_validate(policy)
    except ValidationError:
        return None


def _mentioned(policy: Any, path: Path) -> Iterator[Reference]:
    """Texts in a policy that name backends: the fields that its models declare as plain `str`."""
    kind = policy.get("type") if isinstance(policy, dict) else None
    if isinstance(kind, str) and kind in POLICIES:
        yield from _plain_texts(POLICIES[kind], policy, path)


def _plain_texts(model: type[BaseModel], data: Any, path: Path) -> Iterator[Reference]:
    if not isinstance(data, dict):
        return
    for name, field in model.model_fields.items():
        key = field.alias or name
        value, place = data.get(key), (*path, key)
        if field.annotation is str and not field.metadata and isinstance(value, str):
            yield value, place
        inner = get_args(field.annotation)[:1]
        if isinstance(value, list) and inner and issubclass(inner[0], BaseModel):
            for i, entry in enumerate(value):
                yield from _plain_texts(inner[0], entry, (*place, i))
