"""Endpoints for pickers, and a backend that works on requests in virtual time."""

import heapq
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from hypothesis import strategies as st

from router.data.balance.base import Picker

WEIGHTS = st.lists(st.sampled_from([0.1, 0.5, 1.0, 1.0, 1.0, 2.0, 3.0, 10.0, 1000.0]), min_size=1)
"""Of the endpoints of a backend."""


@dataclass
class Target:
    url: str
    weight: float = 1.0
    in_flight: int = 0
    latency_s: float = 0.0


def targets(*weights: float) -> tuple[Target, ...]:
    """Endpoints `a`, `b`, ... of these weights."""
    return tuple(Target(_name(i), weight) for i, weight in enumerate(weights))


def _name(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"a{number}"


def picked(picker: Picker[Target], count: int, random: Callable[[], float]) -> str:
    """The URLs of `count` picks while nothing is in flight."""
    return "".join(picker.pick(random, b"").url for _ in range(count))


def shares(picker: Picker[Target], count: int, seed: int) -> dict[str, float]:
    """Endpoint -> its share of `count` picks while nothing is in flight."""
    random = Random(seed).random
    counts = Counter(picker.pick(random, b"").url for _ in range(count))
    return {url: number / count for url, number in counts.items()}


def work(
    picker: Picker[Target],
    chosen_from: Sequence[Target],
    count: int,
    *,
    at_once: int,
    takes_s: Mapping[str, float] | None = None,
    seed: int = 1,
) -> dict[str, float]:
    """Endpoint -> its share of `count` requests, `at_once` in flight at any time.

    A request takes an exponential time with the mean `takes_s` of its endpoint, by default 1.
    """
    random = Random(seed)
    running: list[tuple[float, int, float, Target]] = []
    counts: Counter[str] = Counter()
    now = 0.0
    for number in range(count):
        if len(running) == at_once:
            now, _, elapsed_s, done = heapq.heappop(running)
            done.in_flight -= 1
            picker.observe(done, elapsed_s, now)
        target = picker.pick(random.random, b"")
        target.in_flight += 1
        counts[target.url] += 1
        lasts_s = random.expovariate(1 / (takes_s[target.url] if takes_s else 1.0))
        heapq.heappush(running, (now + lasts_s, number, lasts_s, target))
    for target in chosen_from:
        target.in_flight = 0
    return {target.url: counts[target.url] / count for target in chosen_from}
