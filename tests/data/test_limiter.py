"""How many requests at a time: what is learnt from a simulated backend, and what is counted."""

from collections import deque
from heapq import heappop, heappush
from random import Random

import pytest

from router.config.backends import Limits
from router.data.limiter import Gradient, Limiter, build


class Server:
    """A backend of `slots` that each take `service_s`, and callers that never have enough of it.

    Discrete events; any number of workers, each with a limit of its own, share the server.
    """

    def __init__(self, slots: int, service_s: float, workers: int = 1, seed: int = 1) -> None:
        self.slots = slots
        self.service_s = service_s
        self.random = Random(seed)
        self.now = 0.0
        limits = Limits.model_validate({"adaptive": {}})
        self.limiters = [Limiter(limits, 0.0) for _ in range(workers)]
        self.queue: deque[tuple[float, Limiter]] = deque()
        self.done: list[tuple[float, int, float, Limiter]] = []
        self.busy = 0
        self.took: list[float] = []
        self._number = 0

    @property
    def gradients(self) -> list[Gradient]:
        return [item.gradient for item in self.limiters if item.gradient is not None]

    def run(self, for_s: float, rate: float) -> None:
        """Requests come at this rate, in all, for so long."""
        end, next_s, self.took = self.now + for_s, self.now, []
        while self.now < end:
            if self.done and self.done[0][0] <= next_s:
                self.now, _, sent_s, limiter = heappop(self.done)
                self.busy -= 1
                assert limiter.gradient is not None
                limiter.gradient.observe(self.now - sent_s, limiter.in_flight, self.now)
                limiter.in_flight -= 1
                self.took.append(self.now - sent_s)
            else:
                self.now = next_s
                next_s += self.random.expovariate(rate)
                limiter = self.random.choice(self.limiters)
                if limiter.exceeded() is None:
                    limiter.in_flight += 1
                    self.queue.append((self.now, limiter))
            self._serve()

    def _serve(self) -> None:
        while self.queue and self.busy < self.slots:
            sent_s, limiter = self.queue.popleft()
            self.busy += 1
            self._number += 1
            took_s = self.service_s * self.random.uniform(0.8, 1.2)
            heappush(self.done, (self.now + took_s, self._number, sent_s, limiter))

    def p99_s(self) -> float:
        return sorted(self.took)[int(len(self.took) * 0.99)]


@pytest.mark.parametrize(
    ("slots", "service_s", "times"),
    [
        (1, 1 / 300, 12.0),  # the least limit, 4, is 4 times what it takes
        (3, 0.01, 5.0),
        (30, 0.1, 3.0),
        (200, 0.2, 3.0),
        (8, 1.0, 4.0),
    ],
)
def test_in_overload_the_backend_stays_busy_and_its_queue_short(
    slots: int, service_s: float, times: float
) -> None:
    server = Server(slots, service_s)
    capacity = slots / service_s
    server.run(30.0, 4 * capacity)  # learning
    server.run(120.0, 4 * capacity)
    assert len(server.took) / 120.0 >= 0.95 * capacity
    assert server.p99_s() <= times * service_s


def test_in_lasting_overload_the_limit_does_not_drift() -> None:
    server = Server(30, 0.1)
    server.run(75.0, 1200.0)  # probes are at multiples of 30 s
    early = server.gradients[0].limit
    server.run(900.0, 1200.0)
    late = server.gradients[0].limit
    assert late == pytest.approx(early, rel=0.3)
    assert late < 3 * server.slots


def test_workers_that_share_a_backend_do_not_take_each_other_s_queue_for_its_time() -> None:
    server = Server(64, 0.1, workers=8)
    server.run(300.0, 2560.0)
    server.run(60.0, 2560.0)
    assert sum(item.limit for item in server.gradients) < 4 * server.slots
    assert server.p99_s() <= 0.4


def test_a_backend_that_becomes_slower_or_faster_is_followed() -> None:
    server = Server(30, 0.1)
    server.run(60.0, 1200.0)
    server.service_s = 0.3
    server.run(90.0, 1200.0)
    server.run(60.0, 1200.0)
    assert len(server.took) / 60.0 >= 0.9 * 30 / 0.3
    server.service_s = 0.05
    server.run(60.0, 2400.0)
    server.run(60.0, 2400.0)
    assert len(server.took) / 60.0 >= 0.9 * 30 / 0.05


def test_a_limit_that_does_not_bind_stays() -> None:
    server = Server(100, 0.1)
    server.run(120.0, 20.0)  # two in flight
    assert server.gradients[0].limit == 20


def test_the_limit_keeps_to_its_bounds() -> None:
    limits = Limits.model_validate({"adaptive": {"min": 30, "max": 40}})
    assert limits.adaptive is not None
    gradient = Gradient(limits.adaptive, 0.0)
    assert gradient.limit == 30
    now = 0.0
    for turn in range(20_000):
        now += 0.01
        gradient.observe(0.1, gradient.limit, now)
        assert 30 <= gradient.limit <= 40, turn
    assert gradient.limit == 40
    for turn in range(2_000):
        now += 0.01
        gradient.observe(10.0, gradient.limit, now)
        assert 30 <= gradient.limit <= 40, turn


def test_the_fixed_limit_and_the_learnt_one_bind_whichever_is_lower() -> None:
    limiter = build(Limits.model_validate({"in_flight": 10, "adaptive": {"min": 20}}), 0.0)
    assert limiter is not None
    limiter.in_flight = 9
    assert limiter.exceeded() is None
    limiter.in_flight = 10
    assert limiter.exceeded() == "in_flight"
    limiter.in_flight = 20
    assert limiter.exceeded() == "adaptive"


def test_without_limits_nothing_is_counted() -> None:
    assert build(Limits(), 0.0) is None
