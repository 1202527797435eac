"""Which endpoints of a backend get requests: the one place where everything that speaks for or
against one comes together.

1. Control says `up`, `down` or `drain`. A check that fails wins over everything a worker knows; one
   that recovers also ends an ejection, for it saw the trouble and its end. A check that passed all
   the while ends none: what it asks for works, what the requests ask for does not.
2. This worker ejects an endpoint whose requests fail, for a while (`outlier.py`).
3. Ejections never take the last endpoint, and when checks have taken all others, none counts.
4. Panic: with fewer than `panic_below` in use, those down or ejected are used too.
5. An endpoint that comes back gets its share little by little (`balance/slow_start.py`).

Worked out anew only when something changes; a request sees the result.
"""

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING
from weakref import proxy

from router.data.balance.slow_start import SlowStart
from router.data.endpoint import EndpointPool, State
from router.data.outlier import ejectable

if TYPE_CHECKING:
    from router.data.pool import BackendPool

Tell = Callable[[str, str, bool, str, float], None]
"""(backend, URL, is ejected, reason, seconds): an ejection begins or ends."""


class Membership:
    """Of one backend's endpoints, in one worker."""

    def __init__(self, pool: "BackendPool", tell: Tell | None) -> None:
        """`tell` hears of ejections; None: there are none."""
        self._pool = pool
        self._tell = tell
        self._slow_start = SlowStart(pool.config.slow_start)

    def set_state(self, url: str, state: str, addresses: tuple[str, ...]) -> None:
        """Control says this of an endpoint; see `messages.EndpointState`."""
        endpoint = next((item for item in self._pool.endpoints if item.url == url), None)
        if endpoint is None:
            return
        was = endpoint.state
        endpoint.set_state(State(state), addresses)
        if endpoint.state is was:
            return
        if was is State.DOWN:
            self._end_ejection(endpoint)
        if endpoint.state is State.UP:
            self._warm_up(endpoint)
        self.refresh()
        if endpoint.state is State.DOWN:
            endpoint.tell_waiting()

    def eject(self, endpoint: EndpointPool, reason: str) -> bool:
        """Take `endpoint` out of use for a while. False when it cannot be spared."""
        pool, options, tell = self._pool, self._pool.config.outlier, self._tell
        if options is None or tell is None:
            return False
        are_ejected = sum(item.is_ejected for item in pool.endpoints)
        others = any(item.is_usable for item in pool.endpoints if item is not endpoint)
        if not others or are_ejected >= ejectable(options, len(pool.endpoints)):
            return False
        duration_s = endpoint.eject()
        pool.count("pointsman_ejections_total", reason)
        tell(pool.name, endpoint.url, True, reason, duration_s)
        self.refresh()
        return True

    def on_due(self, endpoint: EndpointPool) -> None:
        """The deadline of `endpoint` has come: its ejection ends, or its weight rises."""
        if endpoint.is_ejected:
            self._end_ejection(endpoint)
            self._warm_up(endpoint)
        elif self._slow_start.is_under_way:
            self._weigh(endpoint)
        self.refresh()

    def remember(self, earlier: "BackendPool") -> None:
        """The pool replaces `earlier`: what was learned of endpoints that stay holds here too, and
        those that are new start slowly.
        """
        known = {endpoint.url: endpoint for endpoint in earlier.endpoints}
        for endpoint in self._pool.endpoints:
            if endpoint.url in known:
                endpoint.remember(known[endpoint.url])
            else:
                self._warm_up(endpoint)
        if self._pool.overload is not None and earlier.overload is not None:
            self._pool.overload.remember(earlier.overload)
        self.refresh()

    def retire(self) -> None:
        """Nobody asks any more; see `EndpointPool.retire`."""
        for endpoint in self._pool.endpoints:
            self._end_ejection(endpoint)
        self._pool = proxy(self._pool)

    def refresh(self) -> None:
        """Say anew which endpoints get requests."""
        pool = self._pool
        staying = [item for item in pool.endpoints if item.state is not State.DRAIN]
        targets = [item for item in staying if item.is_usable]
        is_panicking = len(targets) < pool.config.panic_below * len(staying)
        if is_panicking:
            targets = staying
        elif not targets:
            targets = [item for item in staying if item.state is State.UP]
        pool.use(tuple(targets), is_panicking)

    def _end_ejection(self, endpoint: EndpointPool) -> None:
        if endpoint.is_ejected:
            endpoint.end_ejection()
            if self._tell is not None:
                self._tell(self._pool.name, endpoint.url, False, "", 0.0)

    def _warm_up(self, endpoint: EndpointPool) -> None:
        self._slow_start.begin(endpoint.url, monotonic())
        self._weigh(endpoint)

    def _weigh(self, endpoint: EndpointPool) -> None:
        """Give `endpoint` the weight of this moment, and see to its next one."""
        now = monotonic()
        factor = self._slow_start.factor(endpoint.url, now)
        endpoint.weight = endpoint.whole_weight * factor
        if factor < 1.0 and not endpoint.is_ejected:
            endpoint.wheel.arm(endpoint, now + self._slow_start.step_s)
