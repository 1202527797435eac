"""Which endpoint of a backend gets the next request: one file each.

Pure: chance, clock and counts are passed in. Adding an algorithm: its file, its name in
`config/balance.py`, a line here.
"""

from collections.abc import Callable, Sequence

from router.config.balance import Balance
from router.data.balance.base import Picker, T
from router.data.balance.least_request import LeastRequest
from router.data.balance.peak_ewma import PeakEwma
from router.data.balance.random import Random
from router.data.balance.ring_hash import RingHash
from router.data.balance.round_robin import RoundRobin


def build(
    balance: Balance,
    weights: Sequence[float],
    random: Callable[[], float],
    in_flight: Callable[[], int],
) -> Picker[T]:
    """A picker that has adopted nothing yet.

    `weights` are those of every endpoint in the configuration; `random` draws from [0, 1);
    `in_flight` returns how many requests the endpoints work on in all.
    """
    match balance.type:
        case "least_request":
            return LeastRequest()
        case "round_robin":
            return RoundRobin(random())
        case "random":
            return Random()
        case "peak_ewma":
            return PeakEwma()
        case "ring_hash":
            return RingHash(weights, balance.max_load, in_flight)
