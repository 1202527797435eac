"""Mirroring: a copy of a request to a backend whose answer nobody gets.

The copy leaves when the client's exchange is over, over connections of its own, within bounds of
number, bytes and time. What cannot be sent is dropped and counted by reason. Nothing here can reach
back to the exchange it came from.

Outcomes counted: `answered`, `failed`, `timeout`, and without having been sent:
`dropped_in_flight`, `dropped_bytes`, `dropped_failing`, `skipped_size` (body above `max_body`),
`skipped_incomplete` (the client left).

A copy that fails costs more than one that is answered, a connection each. So after some failures in
a row copies pause: one at a time tries, after waits that double; the rest is dropped.
"""

from collections.abc import Callable, Iterable
from math import inf
from time import monotonic
from typing import Final

from router.config.model import Shadow
from router.data.endpoint import EndpointPool
from router.data.pool import BackendPool
from router.data.stats import WorkerStats
from router.data.upstream import Upstream
from router.errors import OVERLOADED, Refusal
from router.http1.request_head import RequestHead, write_request_head
from router.http1.response import ResponseHead

_MARK: Final = b"x-router-shadow: true\r\n"
_FAILURES_MAX: Final = 5
"""In a row; then copies pause."""
_PAUSE_S: Final = 0.1
_PAUSE_MAX_S: Final = 1.0
"""At most so long after a shadow is back it gets copies again."""


class Mirror:
    """One `shadow:` entry of one route, in one worker."""

    def __init__(
        self,
        route: str,
        shadow: Shadow,
        pool: BackendPool,
        stats: WorkerStats,
        random: Callable[[], float],
    ) -> None:
        self.route = route
        self.shadow = shadow
        self.pool = pool
        self.in_flight = 0
        self.in_flight_bytes = 0
        self._failures = 0
        """In a row."""
        self._pause_s = _PAUSE_S
        self._paused_until_s = 0.0
        self._stats = stats
        self._random = random

    def __repr__(self) -> str:
        return f"<Mirror {self.route} -> {self.shadow.backend} [{self.in_flight} in flight]>"

    def is_sampled(self) -> bool:
        """Draw whether this request is copied."""
        return self.shadow.sample >= 1.0 or self._random() < self.shadow.sample

    def count(self, outcome: str) -> None:
        """Count one copy, once, by what became of it."""
        key = ("pointsman_shadow_requests_total", self.route, self.shadow.backend, outcome)
        self._stats.counters[key] += 1

    def send(self, head: RequestHead, request_id: bytes, body: bytes) -> None:
        """Send a copy, or count why not. Returns at once."""
        if self._failures >= _FAILURES_MAX and not self._may_try():
            self.count("dropped_failing")
        elif self.in_flight >= self.shadow.in_flight:
            self.count("dropped_in_flight")
        elif self.in_flight_bytes + len(body) > self.shadow.in_flight_bytes:
            self.count("dropped_bytes")
        else:
            key_of = self.pool.key_of
            key = b"" if key_of is None else key_of(head)
            Copy(self, head, request_id, body).start(key)

    def on_answered(self) -> None:
        """A copy was answered: the pause is over."""
        self._failures = 0
        self._pause_s = _PAUSE_S

    def on_failed(self) -> None:
        """A copy got no connection, or no whole answer on it."""
        self._failures += 1
        if self._failures == _FAILURES_MAX:
            self._paused_until_s = monotonic() + self._pause_s

    def _may_try(self) -> bool:
        """Whether the pause is over for one copy; the next may try after twice the time."""
        now = monotonic()
        if now < self._paused_until_s:
            return False
        self._pause_s = min(2 * self._pause_s, _PAUSE_MAX_S)
        self._paused_until_s = now + self._pause_s
        return True


class Copies:
    """What one exchange keeps for the mirrors that want a copy of its request."""

    __slots__ = ("_body", "_body_bytes", "_mirrors")

    def __init__(self, mirrors: Iterable[Mirror]) -> None:
        self._mirrors = [mirror for mirror in mirrors if mirror.is_sampled()]
        self._body: list[bytes] = []
        self._body_bytes = 0

    def add(self, payload: bytes) -> None:
        """Keep more of the body, while some mirror takes one of that size."""
        self._body_bytes += len(payload)
        for mirror in [item for item in self._mirrors if self._body_bytes > item.shadow.max_body]:
            mirror.count("skipped_size")
            self._mirrors.remove(mirror)
        if self._mirrors:
            self._body.append(payload)
        else:
            self._body.clear()

    def send(self, head: RequestHead, request_id: bytes, is_complete: bool) -> None:
        """The exchange is over: send the copies, or count why not."""
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        for mirror in self._mirrors:
            if is_complete:
                mirror.send(head, request_id, body)
            else:
                mirror.count("skipped_incomplete")


class Copy:
    """One mirrored request. A `Call` that throws its response away."""

    __slots__ = (
        "_bytes", "_mirror", "_request", "_upstream", "deadline", "is_finished", "is_head",
        "is_request_complete", "is_upgrade", "slot_s",
    )  # fmt: skip

    def __init__(self, mirror: Mirror, head: RequestHead, request_id: bytes, body: bytes) -> None:
        self.is_head = head.method == b"HEAD"
        self.is_upgrade = False
        self.is_finished = False
        self.is_request_complete = False
        self.deadline = inf
        self.slot_s = inf
        self._mirror = mirror
        self._bytes = len(body)
        head.fields.pop(b"expect", None)
        self._request = write_request_head(head, len(body), request_id, _MARK) + body
        self._upstream: Upstream | None = None

    def start(self, key: bytes) -> None:
        """Go, to the endpoint of `key` where the backend has keys."""
        mirror = self._mirror
        mirror.in_flight += 1
        mirror.in_flight_bytes += self._bytes
        mirror.pool.wheel.arm(self, monotonic() + mirror.shadow.timeout)
        mirror.pool.submit(self, key=key)

    def on_connected(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self.is_request_complete = True
        upstream.write(self._request)
        self._request = b""
        upstream.expect_response()

    def on_refused(self, refusal: Refusal, detail: str, failed: EndpointPool | None) -> None:
        if refusal is not OVERLOADED:
            self._mirror.on_failed()
        self._finish("failed")

    def on_interim(self, head: ResponseHead) -> None:
        pass

    def on_switched(self, head: ResponseHead, payload: bytes) -> None:
        raise AssertionError("a copy asks for no upgrade")

    def on_response(self, head: ResponseHead, payload: bytes, complete: bool) -> None:
        if complete:
            self._mirror.on_answered()
            self._finish("answered")

    def on_body(self, payload: bytes, complete: bool) -> None:
        if complete:
            self._mirror.on_answered()
            self._finish("answered")

    def on_upstream_lost(self, refusal: Refusal, detail: str) -> None:
        if refusal.status == 504:
            self._finish("timeout")
        else:
            self._mirror.on_failed()
            self._finish("failed")

    def on_endpoint_down(self) -> None:
        upstream = self._upstream
        self._mirror.on_failed()
        self._finish("failed")
        if upstream is not None:
            upstream.abort()

    def on_upstream_paused(self) -> None:
        pass

    def on_upstream_resumed(self) -> None:
        pass

    def on_deadline(self) -> None:
        upstream = self._upstream
        self._finish("timeout")
        if upstream is not None:
            upstream.abort()

    def _finish(self, outcome: str) -> None:
        if self.is_finished:
            return
        self.is_finished = True
        self._upstream = None
        self._request = b""
        mirror = self._mirror
        mirror.in_flight -= 1
        mirror.in_flight_bytes -= self._bytes
        mirror.pool.wheel.drop(self)
        mirror.count(outcome)
