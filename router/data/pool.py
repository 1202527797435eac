"""Connections to the endpoints of one backend.

Strategy:
1. Decide purely, then act: `_choose` looks at counters that are kept, never derived by scanning.
2. Idle connections are a stack (last in, first out), so that surplus ones grow old and expire.
3. An idle connection serves a request without a task or a future. Only opening one is a coroutine.
4. When every endpoint is at its bound, calls wait in one queue, bounded in number and time, first
   come, first served. The queue is in the wheel with the deadline of its oldest call.
"""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import accumulate
from math import inf
from time import monotonic
from urllib.parse import urlsplit

from router.config.backends import Backend
from router.data.outbox import Outbox
from router.data.roles import Call
from router.data.stats import WorkerStats
from router.data.upstream import Upstream
from router.data.wheel import Wheel
from router.errors import (
    NO_ENDPOINT,
    OVERLOADED,
    UPSTREAM_CONNECT,
    UPSTREAM_CONNECT_TIMEOUT,
)
from router.http1.response import ResponseParser


class EndpointPool:
    """One endpoint's connections and counters, in one worker."""

    def __init__(self, backend: "BackendPool", url: str, weight: float) -> None:
        parts = urlsplit(url)
        self.backend = backend
        self.url = url
        self.host = parts.hostname or ""
        self.port = parts.port or 80
        self.weight = weight
        self.is_up = True
        self.timeout = backend.config.timeout
        self.head_max_bytes = backend.config.limits.head_bytes
        self.keep_alive_s = backend.config.keep_alive
        self.wheel = backend.wheel
        self.outbox = backend.outbox
        self.parser = backend.parser
        self.idle: deque[Upstream] = deque()
        self.open = 0
        """Connections that exist or are being opened."""
        self.in_flight = 0
        """Connections that work for a call."""

    def __repr__(self) -> str:
        state = "up" if self.is_up else "down"
        return (
            f"<EndpointPool {self.url} [{state} | {self.open} open: "
            f"{self.in_flight} busy, {len(self.idle)} idle]>"
        )

    def count_failure(self, reason: str) -> None:
        """Count something that went wrong with this endpoint."""
        self.backend.count_failure(reason)

    def on_idle(self, upstream: Upstream, reusable: bool) -> None:
        """`upstream` finished its call."""
        self.in_flight -= 1
        if reusable and not self.backend.is_retired:
            self.idle.append(upstream)
            if self.backend.pending:
                self.backend.serve_pending()
        elif reusable:
            upstream.transport.close()

    def on_closed(self, upstream: Upstream, was_busy: bool) -> None:
        """`upstream` is gone."""
        self.open -= 1
        if was_busy:
            self.in_flight -= 1
        else:
            with suppress(ValueError):  # not there when we closed it after it left the stack
                self.idle.remove(upstream)
        if self.backend.pending:
            self.backend.serve_pending()


class BackendPool:
    """One backend's endpoints. Lives as long as its config, through any number of snapshots."""

    def __init__(
        self,
        name: str,
        config: Backend,
        wheel: Wheel,
        outbox: Outbox,
        stats: WorkerStats,
        random: Callable[[], float],
    ) -> None:
        self.name = name
        self.config = config
        self.wheel = wheel
        self.outbox = outbox
        self.parser = ResponseParser(config.limits.headers)
        self.pending: deque[tuple[float, Call]] = deque()
        """Calls that wait for a connection, each with its deadline, oldest first."""
        self.deadline = inf
        self.slot_s = inf
        self.is_retired = False
        self._stats = stats
        self._random = random
        self._connections_max = config.limits.connections
        self._tasks: set[asyncio.Task[None]] = set()
        self.endpoints = tuple(
            EndpointPool(self, item.url, item.weight) for item in config.endpoints
        )
        self._up = self.endpoints
        self._cumulative = self._weigh()

    def __repr__(self) -> str:
        up = f"{len(self._up)}/{len(self.endpoints)} up"
        return f"<BackendPool {self.name} [{up}, {len(self.pending)} pending]>"

    @property
    def authority(self) -> bytes:
        """A `host` for requests that bring none: that of the first endpoint."""
        return urlsplit(self.endpoints[0].url).netloc.encode("ascii")

    @property
    def open(self) -> int:
        """Connections, idle or busy."""
        return sum(endpoint.open for endpoint in self.endpoints)

    def set_health(self, url: str, is_up: bool) -> None:
        """An endpoint passed or failed its health check."""
        for endpoint in self.endpoints:
            if endpoint.url == url:
                endpoint.is_up = is_up
        self._up = tuple(endpoint for endpoint in self.endpoints if endpoint.is_up)
        self._cumulative = self._weigh()
        if not self._up:
            while self.pending:
                _, call = self.pending.popleft()
                if not call.is_finished:
                    call.on_refused(NO_ENDPOINT, f"every endpoint of {self.name} is down", None)
        elif self.pending:
            self.serve_pending()

    def count_failure(self, reason: str) -> None:
        """Count a failed attempt on some endpoint."""
        self._stats.counters["pointsman_upstream_failures_total", self.name, reason] += 1

    def count_retry(self, reason: str) -> None:
        """Count an attempt after the first."""
        self._stats.counters["pointsman_retries_total", self.name, reason] += 1

    # choosing: pure over counters

    def _weigh(self) -> list[float] | None:
        """Cumulative weights of the endpoints that are up, or None when they weigh the same."""
        weights = [endpoint.weight for endpoint in self._up]
        return None if len(set(weights)) <= 1 else list(accumulate(weights))

    def _draw(self) -> EndpointPool:
        """One of the endpoints that are up, at random by weight."""
        cumulative = self._cumulative
        if cumulative is None:
            return self._up[int(self._random() * len(self._up))]
        return self._up[bisect_right(cumulative, self._random() * cumulative[-1])]

    def _choose(self, avoid: frozenset[str]) -> EndpointPool | None:
        """The less busy, by weight, of two endpoints drawn at random (Mitzenmacher 2001)."""
        up = self._up
        if len(up) <= 1:
            return up[0] if up else None
        if avoid:
            others = [endpoint for endpoint in up if endpoint.url not in avoid]
            if others:
                return min(others, key=lambda endpoint: endpoint.in_flight / endpoint.weight)
        a, b = self._draw(), self._draw()
        return a if a.in_flight * b.weight <= b.in_flight * a.weight else b

    # acting

    def submit(self, call: Call, avoid: frozenset[str] = frozenset()) -> None:
        """Give `call` a connection: now when one is idle, else when one is open, else in turn.

        Calls back `on_connected` or `on_refused`, possibly before returning. Endpoints whose URL is
        in `avoid` are used only when there is no other.
        """
        endpoint = self._choose(avoid)
        if endpoint is None:
            call.on_refused(NO_ENDPOINT, f"every endpoint of {self.name} is down", None)
        elif not self._try_endpoint(endpoint, call):
            self._submit_elsewhere(endpoint, call)

    def _try_endpoint(self, endpoint: EndpointPool, call: Call) -> bool:
        idle = endpoint.idle
        while idle:
            upstream = idle.pop()
            if not upstream.transport.is_closing() and upstream.is_usable(monotonic()):
                endpoint.in_flight += 1
                upstream.begin(call)
                call.on_connected(upstream)
                return True
            upstream.transport.abort()
        if endpoint.open >= self._connections_max:
            return False
        endpoint.open += 1
        task = asyncio.get_running_loop().create_task(self._connect(endpoint, call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def _submit_elsewhere(self, full: EndpointPool, call: Call) -> None:
        for endpoint in self._up:
            if endpoint is not full and self._try_endpoint(endpoint, call):
                return
        if len(self.pending) >= self.config.limits.pending:
            detail = f"{len(self.pending)} requests wait for a connection to {self.name}"
            call.on_refused(OVERLOADED, detail, None)
            return
        deadline = monotonic() + self.config.limits.pending_timeout
        self.pending.append((deadline, call))
        if len(self.pending) == 1:
            self.wheel.arm(self, deadline)

    def on_deadline(self) -> None:
        """The oldest waiting call has waited too long; see `wheel.Timed`."""
        now = monotonic()
        timeout_s = self.config.limits.pending_timeout
        while self.pending and (self.pending[0][1].is_finished or self.pending[0][0] <= now):
            _, call = self.pending.popleft()
            if not call.is_finished:
                detail = f"no connection to {self.name} came free within {timeout_s:g} s"
                call.on_refused(OVERLOADED, detail, None)
        if self.pending:
            self.wheel.arm(self, self.pending[0][0])

    def serve_pending(self) -> None:
        """A connection came free: give it to the call that waits longest."""
        while self.pending:
            if self.pending[0][1].is_finished:
                self.pending.popleft()
                continue
            if not any(
                endpoint.idle or endpoint.open < self._connections_max for endpoint in self._up
            ):
                return
            self.submit(self.pending.popleft()[1])

    async def _connect(self, endpoint: EndpointPool, call: Call) -> None:
        """Open a connection for `call`; `endpoint.open` counts it already."""
        timeout_s = self.config.timeout.connect
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                _, upstream = await loop.create_connection(
                    lambda: Upstream(endpoint), endpoint.host, endpoint.port
                )
        except TimeoutError:
            self._connect_failed(endpoint)
            self.count_failure("connect-timeout")
            detail = f"{endpoint.url} did not accept a connection within {timeout_s:g} s"
            if not call.is_finished:
                call.on_refused(UPSTREAM_CONNECT_TIMEOUT, detail, endpoint)
            return
        except (OSError, UnicodeError) as error:  # UnicodeError: no name of the DNS
            self._connect_failed(endpoint)
            self.count_failure("connect")
            if not call.is_finished:
                reason = getattr(error, "strerror", None) or str(error)
                call.on_refused(UPSTREAM_CONNECT, f"{endpoint.url}: {reason}", endpoint)
            return
        self._stats.counters["pointsman_upstream_connections_opened_total", self.name] += 1
        endpoint.in_flight += 1
        if call.is_finished:  # the client left meanwhile: keep the connection for another
            upstream.give_back()
            return
        upstream.begin(call)
        call.on_connected(upstream)

    def _connect_failed(self, endpoint: EndpointPool) -> None:
        endpoint.open -= 1
        if self.pending:
            self.serve_pending()

    def retire(self) -> None:
        """No snapshot routes here any more: idle connections close now, busy ones when done."""
        self.is_retired = True
        for endpoint in self.endpoints:
            while endpoint.idle:
                endpoint.idle.pop().transport.close()
