"""`least_request`: the less busy, by weight, of two endpoints drawn at random.

Busy is requests in flight / weight. Of two that are equally busy the first drawn is taken, so that
the shares of an idle backend follow the weights.

Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 12(10),
2001. Close to the least busy of all without looking at all of them, and workers that do not see
each other's requests do not all run to the same endpoint.
"""

from collections.abc import Callable
from typing import Generic

from router.data.balance.base import T
from router.data.balance.draw import Draw


class LeastRequest(Generic[T]):
    """Power of two choices on requests in flight."""

    needs_latency = False

    def __init__(self) -> None:
        self._two = Draw[T](()).two

    def adopt(self, targets: tuple[T, ...]) -> None:
        self._two = Draw(targets).two

    def pick(self, random: Callable[[], float], key: bytes) -> T:
        a, b = self._two(random)
        return a if a.in_flight * b.weight <= b.in_flight * a.weight else b

    def observe(self, target: T, elapsed_s: float, now_s: float) -> None:
        pass
