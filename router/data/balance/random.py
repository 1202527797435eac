"""`random`: an endpoint drawn by weight, whatever it has to do."""

from collections.abc import Callable
from typing import Generic

from router.data.balance.base import T
from router.data.balance.draw import Draw


class Random(Generic[T]):
    """Independent draws."""

    needs_latency = False

    def __init__(self) -> None:
        self._one = Draw[T](()).one

    def adopt(self, targets: tuple[T, ...]) -> None:
        self._one = Draw(targets).one

    def pick(self, random: Callable[[], float], key: bytes) -> T:
        return self._one(random)

    def observe(self, target: T, elapsed_s: float, now_s: float) -> None:
        pass
