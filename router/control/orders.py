"""`pointsman drain`, `undrain`, `restart`: orders to a running router. Runs in the command line."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from router.control.client import AdminError, ask
from router.logs import escaped
from router.units import format_duration

_LOOK_S: Final = 0.1
_RESTART_S: Final = 600.0
"""How long a restart may take: a second or less for each worker; there are 256 at most."""

Row = dict[str, Any]
"""What the router says of one endpoint: `backend`, `url`, `state`, `changed`."""


@dataclass(frozen=True, slots=True)
class Order:
    """Which endpoints, and where the router is. `backend` None: every one that has the endpoint."""

    admin: str
    token: str | None
    endpoint: str
    backend: str | None = None


def drain(order: Order, force: bool) -> list[Row]:
    """Give the endpoints nothing new; these.

    Raises:
        AdminError: the router could not be asked, or refused.
    """
    return _post(order, "drain", force=force)


def undrain(order: Order) -> list[Row]:
    """Use the endpoints again; these.

    Raises:
        AdminError: the router could not be asked, or refused.
    """
    return _post(order, "undrain")


def wait_until_idle(order: Order, drained: Sequence[Row], timeout_s: float) -> None:
    """Return when nothing is in flight any more on endpoints that `drain` returned.

    Raises:
        AdminError: they are still busy after `timeout_s`, are no longer drained or gone from the
            file, or the router could not be asked.
    """
    end_s = time.monotonic() + timeout_s
    while busy := _busy(order.admin, drained):
        if time.monotonic() >= end_s:
            raise AdminError(f"after {format_duration(timeout_s)}: {'; '.join(busy)}")
        time.sleep(_LOOK_S)


def restart(admin: str, token: str | None) -> int:
    """Replace every worker; how many.

    Raises:
        AdminError: the router could not be asked, or refused.
    """
    document = ask(admin, "POST", "/restart", token=token, timeout_s=_RESTART_S)
    return int(document["workers"])


def render(rows: Sequence[Row]) -> str:
    """Lines for people. What came over the network is escaped."""
    lines = (
        f"{row['url']} of {row['backend']}: {row['state']}{'' if row['changed'] else ', as it was'}"
        for row in rows
    )
    return "\n".join(escaped(line) for line in lines)


def _post(order: Order, action: str, **others: Any) -> list[Row]:
    question = {"endpoint": order.endpoint, "backend": order.backend, **others}
    document = ask(order.admin, "POST", f"/endpoints/{action}", question, order.token)
    rows: list[Row] = document["endpoints"]
    return rows


def _busy(admin: str, drained: Sequence[Row]) -> list[str]:
    """What is still in flight on each of these."""
    now = {
        (name, row["url"]): row
        for name, backend in ask(admin, "GET", "/status")["backends"].items()
        for row in backend["endpoints"]
    }
    busy: list[str] = []
    for meant in drained:
        name = f"{meant['url']} of {meant['backend']}"
        row = now.get((meant["backend"], meant["url"]))
        if row is None or row["state"] != "draining":
            raise AdminError(f"{name} is no longer {'in the file' if row is None else 'draining'}")
        if row["in_flight"] is None:
            busy.append(f"not every worker told what is in flight on {name}")
        elif row["in_flight"]:
            busy.append(f"{row['in_flight']} requests are in flight on {name}")
    return busy
