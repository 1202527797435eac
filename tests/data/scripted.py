"""Transports, clocks and calls for tests without sockets."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from router.config.backends import Backend
from router.data import endpoint, membership, pool, sending, upstream, wheel
from router.data.endpoint import EndpointPool
from router.data.outbox import Outbox
from router.data.pool import BackendPool
from router.data.stats import WorkerStats
from router.data.upstream import Upstream
from router.data.wheel import Wheel
from router.errors import Refusal
from router.http1.response import ResponseHead


class Clock:
    """`monotonic` of the modules that read it; moves only when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        for module in (wheel, pool, membership, endpoint, sending, upstream):
            monkeypatch.setattr(module, "monotonic", lambda: self.now)


class Loop:
    """Runs what is scheduled when told to."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], object]] = []
        self.later: list[Callable[[], object]] = []
        self.reported: list[dict[str, Any]] = []

    def call_soon(self, action: Callable[[], object]) -> None:
        self.soon.append(action)

    def call_later(self, delay_s: float, action: Callable[[], object]) -> "Loop":
        self.later.append(action)
        return self

    def cancel(self) -> None:
        self.later.clear()

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.reported.append(context)

    def turn(self) -> None:
        """Everything that is due, once."""
        actions, self.soon, self.later = self.soon + self.later, [], []
        for action in actions:
            action()


class Transport:
    """Writes down what is sent; never closes by itself."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.unsent_bytes = 0
        self.state = "open"
        self.is_reading = True

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.state != "open"

    def abort(self) -> None:
        self.state = "aborted"

    def close(self) -> None:
        self.state = "closed"

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_extra_info(self, _: str) -> None:
        return None


class Call:
    """An `upstream.Call` that writes down what it is told."""

    is_upgrade = False

    def __init__(self, *, is_head: bool = False) -> None:
        self.is_head = is_head
        self.is_request_complete = True
        self.is_finished = False
        self.events: list[tuple[Any, ...]] = []
        self.upstream: Upstream | None = None

    def on_connected(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.events.append(("connected", upstream.pool.url))
        upstream.pool.outbox.flush()  # the request has left

    def on_refused(self, refusal: Refusal, detail: str, failed: EndpointPool | None) -> None:
        self.is_finished = True
        self.events.append(("refused", refusal.reason))

    def on_interim(self, head: ResponseHead) -> None:
        self.events.append(("interim", head.status))

    def on_switched(self, head: ResponseHead, payload: bytes) -> None:
        self.events.append(("switched", payload))

    def on_response(self, head: ResponseHead, payload: bytes, complete: bool) -> None:
        self.events.append(("response", head.status, payload, complete))

    def on_body(self, payload: bytes, complete: bool) -> None:
        self.events.append(("body", payload, complete))

    def on_upstream_lost(self, refusal: Refusal, detail: str) -> None:
        self.events.append(("lost", refusal.reason))

    def on_endpoint_down(self) -> None:
        self.events.append(("down",))

    def on_upstream_paused(self) -> None:
        self.events.append(("paused",))

    def on_upstream_resumed(self) -> None:
        self.events.append(("resumed",))


class Bench:
    """A backend pool whose connections are scripted."""

    def __init__(
        self, endpoints: list[Any], random: Callable[[], float] = lambda: 0.0, **backend: Any
    ) -> None:
        self.loop = Loop()
        self.wheel = Wheel(cast(asyncio.AbstractEventLoop, self.loop))
        self.wheel.start()
        self.outbox = Outbox(cast(asyncio.AbstractEventLoop, self.loop))
        self.stats = WorkerStats()
        config = Backend.model_validate({"endpoints": endpoints, **backend})
        self.told: list[tuple[str, bool, str, float]] = []
        """URL, whether it is ejected, reason and duration of every ejection's begin and end."""
        self.pool = BackendPool(
            "v1",
            config,
            self.wheel,
            self.outbox,
            self.stats,
            random,
            lambda _, *told: self.told.append(told),
        )

    def connect(self, endpoint: EndpointPool, call: Call | None = None) -> Upstream:
        """A connection that is idle, or works for `call`."""
        connection = Upstream(endpoint)
        connection.connection_made(cast(asyncio.Transport, Transport()))
        endpoint.open += 1
        endpoint.in_flight += 1
        if endpoint.limiter is not None:
            endpoint.limiter.in_flight += 1
        if call is None:
            connection.give_back()
        else:
            connection.begin(call)
            self.outbox.flush()  # its request has left
        return connection

    def counted(self, metric: str, *labels: str) -> int:
        return self.stats.counters[f"pointsman_{metric}_total", "v1", *labels]

    def failures(self, reason: str) -> int:
        return self.stats.counters["pointsman_upstream_failures_total", "v1", reason]


def transport_of(connection: Upstream) -> Transport:
    return cast(Transport, connection.transport)
