"""`ring_hash`: requests of one key to one endpoint, as long as that is there and not overloaded.

1. Every endpoint lies on a ring at many points, hashes of its URL; a key belongs to the endpoint
   at the first point after its own hash. So an endpoint that leaves gives away its keys and no
   others, each to the next on the ring, and gets them back when it returns.
2. Points depend on URL and weight alone: every worker, router and restart agrees, with no store.
3. Loads are bounded: an endpoint whose requests in flight are more than `max_load` times its share
   of all passes further ones on along the ring. A hot key spreads over as many as it takes.
4. A request without a key goes where it is least busy.

Sources: Karger et al., "Consistent Hashing and Random Trees", STOC 1997; 160 points as in
libketama; Mirrokni, Thorup & Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from hashlib import blake2b
from math import inf, log
from struct import Struct
from typing import Final, Generic

from router.data.balance.base import T
from router.data.balance.least_request import LeastRequest

POINTS: Final = 160
"""Of an endpoint of weight 1. The number an endpoint gets of the keys is then within 8 % of its
share (one standard deviation), and a ring of 100 endpoints is laid out in about 5 ms."""
_STEPS_MAX: Final = 64
"""Points looked at for one with room. A fifth has room when `max_load` is 1.25, if no more than the
share is in flight; 64 without any happen once in a million such picks."""
_POINT_BITS: Final = 42
_RANK_BITS: Final = 18
"""A point and the rank of its endpoint are one number, which is sorted and searched several times
as fast as a pair. Together 60 bits, two digits of a Python integer; 18 are more endpoints than a
file can name."""
_RANK: Final = (1 << _RANK_BITS) - 1
_WORDS: Final = Struct(">8Q")


class RingHash(Generic[T]):
    """A consistent hash with bounded loads. Cost of a pick: O(log n)."""

    needs_latency = False

    def __init__(
        self, weights: Sequence[float], max_load: float | None, in_flight: Callable[[], int]
    ) -> None:
        """`weights` are those of all endpoints, whether in use or not.

        `in_flight` returns how many requests they all work on.
        """
        self._unit = weight_unit(weights)
        self._max_load = inf if max_load is None else max_load
        self._in_flight = in_flight
        self._without_key = LeastRequest[T]()
        self._targets: tuple[T, ...] = ()
        self._room: list[float] = []
        """By rank: the share of all requests in flight above which there is no room."""
        self._ring: list[int] = []
        self._is_stale = False
        self._known: dict[tuple[str, int], list[int]] = {}

    def adopt(self, targets: tuple[T, ...]) -> None:
        self._targets = targets
        self._is_stale = True
        self._without_key.adopt(targets)

    def _build(self) -> None:
        """Lay out the ring. At the next pick, so that a hundred changes at once cost one ring."""
        targets = self._targets
        total = sum(target.weight for target in targets)
        known, self._known = self._known, {}
        ring: list[int] = []
        for rank, target in enumerate(targets):
            identity = target.url, max(1, round(POINTS * target.weight / self._unit))
            points = self._known[identity] = known.get(identity) or _points(*identity)
            ring += [point | rank for point in points]
        ring.sort()  # of sorted runs: half the work of sorting anything
        self._room = [self._max_load * target.weight / total for target in targets]
        self._ring = ring
        self._is_stale = False

    def pick(self, random: Callable[[], float], key: bytes) -> T:
        if key:
            if self._is_stale:
                self._build()
            ring, targets, room = self._ring, self._targets, self._room
            load = self._in_flight() + 1
            i = bisect_left(ring, _place(blake2b(key, digest_size=8).digest()))
            for _ in range(_STEPS_MAX):
                rank = ring[i if i < len(ring) else 0] & _RANK
                target = targets[rank]
                if target.in_flight < room[rank] * load:
                    return target
                i = i + 1 if i < len(ring) else 1
        return self._without_key.pick(random, key)

    def observe(self, target: T, elapsed_s: float, now_s: float) -> None:
        pass


def weight_unit(weights: Sequence[float]) -> float:
    """The weight that has `POINTS` points: 1, unless the mean is below 1/4 or above 4.

    Then it is a power of 16 near the mean. In steps as wide as that, it stays the same when an
    endpoint is added or removed; if it did not, keys would move between all the others.
    """
    mean = sum(weights) / len(weights)
    return 16.0 ** round(log(mean, 16.0))


def _points(url: str, count: int) -> list[int]:
    """Where an endpoint lies, sorted; fewer points are the first of more."""
    points: list[int] = []
    name = url.encode("utf-8")
    for number in range(-(-count // 8)):
        digest = blake2b(number.to_bytes(4, "big") + name, digest_size=64).digest()
        points += [word >> 64 - _POINT_BITS << _RANK_BITS for word in _WORDS.unpack(digest)]
    return sorted(points[:count])


def _place(digest: bytes) -> int:
    """Where a key lies: before an endpoint at the same point."""
    return int.from_bytes(digest) >> 64 - _POINT_BITS << _RANK_BITS
