"""Several routers with one rollout: who leads it, and what each of them measured.

`Alone` is the router by itself (SQLite, memory). `redis_fleet.py` shares a Redis.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from router.rollouts.measured import Block
from router.rollouts.plan import Place

REPORTS_MAX: Final = 600
"""Reports that wait for a leader, per route: ten minutes."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one router says of a route, about once a second.

    `revision` is the rollout's that its workers act on. `in_flight`: requests on idle endpoints.
    """

    router: str
    revision: int
    block: Block
    in_flight: Mapping[Place, int] = field(default_factory=dict)


class Fleet(Protocol):
    """What rollouts ask of their fleet. Every coroutine raises `StateError`."""

    hears_s: float
    """How long one who begins to lead must listen until it has heard every other router."""

    def leader(self, route: str) -> str:
        """The router that leads the rollout of a route, as `lead` found last; empty: unknown."""
        ...

    async def lead(self, route: str) -> int | None:
        """The fence (a number that rises with each change of leader) when this router leads the
        rollout of a route, its lease now renewed; None when another does."""
        ...

    async def share(self, route: str, report: Report) -> None:
        """Give the leader, whoever it is, a report. When this raises, it waits here and goes with
        the next. Bounded: the oldest are dropped."""
        ...

    async def gather(self, route: str, cursor: str) -> tuple[list[Report], str]:
        """Every router's reports after `cursor`, each exactly once, and the cursor after them."""
        ...

    async def close(self) -> None:
        """Give up every lease at once, so that another may lead."""
        ...


class Alone:
    """A fleet of one. What is not gathered yet is lost at exit, and nothing else is."""

    hears_s = 0.0

    def __init__(self) -> None:
        self._reports: dict[str, deque[Report]] = {}

    def leader(self, route: str) -> str:
        return ""

    async def lead(self, route: str) -> int | None:
        return 1

    async def share(self, route: str, report: Report) -> None:
        self._reports.setdefault(route, deque(maxlen=REPORTS_MAX)).append(report)

    async def gather(self, route: str, cursor: str) -> tuple[list[Report], str]:
        reports = list(self._reports.pop(route, ()))
        return reports, cursor

    async def close(self) -> None:
        self._reports.clear()
