"""`pointsman status`: the admin API's `/status` as a table for people. Runs in the command line."""

import http.client
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from router.errors import PointsmanError
from router.logs import escaped
from router.units import format_share

_TIMEOUT_S: Final = 5.0


class OverviewError(PointsmanError):
    """The router could not be asked; the message is for the operator."""


def fetch(admin: str) -> dict[str, Any]:
    """The `/status` document of the admin API at `admin` (`http://host:port`, or `host:port`).

    Raises:
        OverviewError: nothing answers there, or not what a router would.
    """
    try:
        parts = urlsplit(admin if "//" in admin else f"//{admin}")
        port, host = parts.port, parts.hostname
    except ValueError as error:
        raise OverviewError(f"{admin!r} is not an admin API's address: {error}") from None
    if parts.scheme not in ("", "http") or not host:
        raise OverviewError(f"{admin!r} is not an admin API's address, write http://host:port")
    connection = http.client.HTTPConnection(host, port or 80, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/status")
        response = connection.getresponse()
        document = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise OverviewError(
            f"no router answers at {admin}: {error}; is it running, and is this its admin.listen?"
        ) from error
    finally:
        connection.close()
    if response.status != 200 or not isinstance(document, dict) or "routes" not in document:
        raise OverviewError(f"what answers at {admin} is not a router's admin API")
    return document


def is_ready(admin: str) -> bool:
    """Whether a router answers at `admin`, and its workers take requests."""
    try:
        return bool(fetch(admin)["phase"] == "ready")
    except OverviewError:
        return False


def render(document: dict[str, Any]) -> str:
    """Lines for people. What came over the network is escaped."""
    return "\n".join(escaped(line) for line in _lines(document))


def _lines(document: dict[str, Any]) -> Iterator[str]:
    config = document["config"]
    yield (
        f"pointsman {document['version']}  {document['phase']}  listen {document['listen']}  "
        f"admin {document['admin']}"
    )
    yield (
        f"config {config['source']}  generation {document['generation']}  "
        f"digest {config['digest'][:12]}  since {config['loaded_at']}"
    )
    reload = document["last_reload"]
    if reload is not None and not reload["success"]:
        yield f"LAST RELOAD REFUSED at {reload['at']} ({reload['trigger']}):"
        yield from (f"  {error}" for error in reload["errors"])
    states = [f"{w['worker']} {w['state']} (pid {w['pid']})" for w in document["workers"]]
    yield f"workers {', '.join(states)}; {document['worker_restarts']} restarts"
    yield ""
    yield from _columns(
        ["ROUTE", "POLICY", "VARIANT", "STATE", "WEIGHT", "SHARE", "REQUESTS", "P50", "P99"],
        list(_variant_rows(document)),
    )
    yield ""
    yield from _columns(
        ["BACKEND", "ENDPOINT", "HEALTH", "SINCE", "REASON"], list(_endpoint_rows(document))
    )


def _variant_rows(document: dict[str, Any]) -> Iterator[list[str]]:
    for route in document["routes"]:
        for variant in route["variants"]:
            share = variant["share"]
            yield [
                route["name"],
                route["policy"],
                variant["name"],
                variant["state"],
                format_share(variant["weight"]),
                "-" if share is None else f"{share * 100:.1f}%",
                str(variant["requests"]),
                _milliseconds(variant["p50_s"]),
                _milliseconds(variant["p99_s"]),
            ]


def _endpoint_rows(document: dict[str, Any]) -> Iterator[list[str]]:
    for name, backend in document["backends"].items():
        for endpoint in backend["endpoints"]:
            health = "not checked"
            if endpoint["checked"]:
                health = "up" if endpoint["up"] else "DOWN"
            yield [
                name,
                endpoint["url"],
                health,
                endpoint.get("since") or "-",
                endpoint.get("reason") or "-",
            ]


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.3g} ms"


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    table = [head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    for row in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
