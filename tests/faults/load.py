"""Load and endpoints for tests that are plain functions: both run in a loop in a thread of its own.

`accounted` is the rule of this suite: what the client sent, what it got, what endpoints were sent
and what the router counted must agree.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import uvloop

from benchmarks.failover import load
from benchmarks.failover.endpoint import Endpoint
from benchmarks.failover.load import Load, Outcome
from tests.serve.harness import DEADLINE_S, Router, poll, total

_T = TypeVar("_T")


class Stage:
    """Endpoints `a`, `b`, ... and the loop they live in."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.endpoints: list[Endpoint] = []

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """The result of `work`, in the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE_S)

    def add(self, port: int = 0, host: str = "127.0.0.1") -> Endpoint:
        """One more endpoint."""
        endpoint = Endpoint(chr(ord("a") + len(self.endpoints)), port, host)
        self.run(endpoint.up())
        self.endpoints.append(endpoint)
        return endpoint

    @property
    def delivered(self) -> Counter[str]:
        """Requests that endpoints were sent, by id."""
        return sum((endpoint.delivered for endpoint in self.endpoints), Counter())

    def backend(self, **changes: Any) -> dict[str, Any]:
        """A backend of all endpoints."""
        return {"endpoints": [endpoint.url for endpoint in self.endpoints], **changes}

    @contextmanager
    def load(self, address: str, **options: Any) -> Iterator["Traffic"]:
        """Requests from `with` to its end; some have been answered or refused before it begins."""
        traffic = Traffic(Load(address, **options))
        self.run(traffic.load.start())
        try:
            traffic.more(20)
            yield traffic
        finally:
            self.run(traffic.load.stop())


class Traffic:
    """What a load did so far."""

    def __init__(self, load: Load) -> None:
        self.load = load

    @property
    def outcomes(self) -> list[Outcome]:
        return self.load.outcomes

    def more(self, count: int = 100) -> list[Outcome]:
        """Wait until so many more have ended; these."""
        before = len(self.outcomes)
        poll(lambda: len(self.outcomes) >= before + count, f"{count} more requests")
        return self.outcomes[before:]

    def bad(self) -> list[Outcome]:
        """Requests that were not answered 200 by an endpoint."""
        return [outcome for outcome in self.outcomes if not outcome.is_good]

    def bad_gets(self) -> list[Outcome]:
        return [outcome for outcome in self.bad() if not outcome.is_post]


@contextmanager
def stage(count: int) -> Iterator[Stage]:
    """So many endpoints. Everything of them ends."""
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    it = Stage(loop)
    try:
        for _ in range(count):
            it.add()
        yield it
    finally:
        for endpoint in it.endpoints:
            it.run(endpoint.down())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def accounted(stage: Stage, traffic: Traffic, router: Router, before: Mapping[str, float]) -> None:
    """Every request ended once, for the client and for the router; no POST was delivered twice.

    `before`: the router's metrics before the load. Only of a router none of whose workers died:
    what a worker counted in its last second dies with it.
    """
    kinds = delivered_once(stage, traffic)
    outcomes = traffic.outcomes
    not_connected = sum(outcome.detail.startswith("connect: ") for outcome in outcomes)
    cut = kinds[load.FAILED] - not_connected
    whole = Counter(o.status // 100 for o in outcomes if o.kind != load.FAILED)
    expected = {
        "2xx": whole[2],
        "3xx": whole[3],
        "4xx": whole[4],
        "5xx": whole[5] + cut,
        "abort": 0,
        "truncated": cut,
        "refused": kinds[load.REFUSED],
        "in flight": 0,
    }
    counted: dict[str, float] = {}
    with suppress(AssertionError):  # a scrape waits for what workers count, but not for long
        poll(lambda: counted.update(_counted(before, router.metrics())) or counted == expected)
    assert counted == expected


def _counted(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    def grown(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    codes = ("2xx", "3xx", "4xx", "5xx", "abort")
    return {code: grown("pointsman_requests_total", code=code) for code in codes} | {
        "truncated": grown("pointsman_truncated_total"),
        "refused": grown("pointsman_refused_total"),
        "in flight": after["pointsman_requests_in_flight"],
    }


def delivered_once(stage: Stage, traffic: Traffic) -> Counter[str]:
    """Every request ended once for the client, and no POST was delivered twice; outcome counts."""
    outcomes = traffic.outcomes
    kinds = load.kinds(outcomes)
    assert traffic.load.sent == len(outcomes) == sum(kinds.values())
    assert len({outcome.id for outcome in outcomes}) == len(outcomes)
    answered = {outcome.id for outcome in outcomes if outcome.kind == load.ANSWERED}
    assert answered <= stage.delivered.keys()
    assert load.twice(stage.delivered) == 0
    return kinds
