from collections import Counter
from collections.abc import Callable, Iterable
from hashlib import blake2b
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.data.balance.ring_hash import POINTS, RingHash, weight_unit
from tests.data.balance.targets import WEIGHTS, Target, shares, targets

KEYS = [b"user-%d" % i for i in range(4000)]


def ring(
    among: tuple[Target, ...],
    *,
    max_load: float | None = None,
    configured: Iterable[Target] | None = None,
) -> RingHash[Target]:
    weights = [target.weight for target in configured or among]
    picker = RingHash[Target](weights, max_load, lambda: sum(one.in_flight for one in among))
    picker.adopt(among)
    return picker


def never() -> float:
    raise AssertionError("nothing is drawn")


def owners(picker: RingHash[Target], keys: Iterable[bytes] = KEYS) -> dict[bytes, str]:
    return {key: picker.pick(never, key).url for key in keys}


def urls(count: int) -> tuple[Target, ...]:
    return tuple(Target(f"http://model-{i}:8000") for i in range(count))


# who owns a key


def test_known_keys_keep_their_endpoints_forever() -> None:
    """In every worker, after every restart: nothing but URL, weight and key decides."""
    found = owners(ring(targets(1, 1, 2)), [b"user-%d" % i for i in range(24)])
    assert "".join(found.values()) == "bccaccccaacccbcbabccaccb"


def test_a_key_belongs_to_the_next_point_and_after_the_last_to_the_first() -> None:
    """And from there goes on round the ring. Each endpoint has one point here."""
    among = targets(1, 1, 1)
    picker = RingHash[Target]([160], 1.25, lambda: 3)
    picker.adopt(among)
    points = sorted((point_of(bytes(4) + target.url.encode()), target) for target in among)
    around = [target for _, target in points]
    after_last = 0
    for key in KEYS[:200]:
        place = point_of(key)
        first = sum(point < place for point, _ in points)
        after_last += first == 3
        for busy in range(3):  # 2 in flight are more than 1.25 x (3 + 1) / 3
            assert picker.pick(never, key) is around[(first + busy) % 3]
            around[(first + busy) % 3].in_flight = 2
        for target in among:
            target.in_flight = 0
    assert 0 < after_last < 200


def point_of(content: bytes) -> int:
    """The first of the hash's 64-bit words, of which 42 bits count."""
    size = 64 if content[:4] == bytes(4) else 8
    return int.from_bytes(blake2b(content, digest_size=size).digest()[:8]) >> 22


def test_the_order_of_endpoints_makes_no_difference() -> None:
    among = urls(7)
    assert owners(ring(among)) == owners(ring(among[::-1]))


def test_keys_are_shared_by_weight() -> None:
    counts = Counter(owners(ring(targets(1, 1, 2, 4))).values())
    total = len(KEYS)
    # one standard deviation of a share is 8 % of it at weight 1, less above; four of them
    assert counts["a"] / total == pytest.approx(1 / 8, rel=0.34)
    assert counts["b"] / total == pytest.approx(1 / 8, rel=0.34)
    assert counts["c"] / total == pytest.approx(2 / 8, rel=0.24)
    assert counts["d"] / total == pytest.approx(4 / 8, rel=0.17)


def test_of_a_hundred_endpoints_none_has_half_as_much_again() -> None:
    counts = Counter(owners(ring(urls(100)), (b"%d" % i for i in range(50_000))).values())
    assert len(counts) == 100
    assert all(0.6 < n / 500 < 1.5 for n in counts.values())


@given(st.integers(2, 12), st.data())
def test_when_an_endpoint_leaves_only_its_keys_move(count: int, data: st.DataObject) -> None:
    among = urls(count)
    gone = data.draw(st.sampled_from(among))
    picker = ring(among)
    before = owners(picker, KEYS[:500])
    picker.adopt(tuple(target for target in among if target is not gone))
    after = owners(picker, KEYS[:500])
    assert all(after[key] == url for key, url in before.items() if url != gone.url)
    picker.adopt(among)
    assert owners(picker, KEYS[:500]) == before


def test_a_tenth_of_the_keys_move_when_one_of_ten_leaves_and_to_all_others() -> None:
    among = urls(10)
    picker = ring(among)
    before = owners(picker)
    picker.adopt(among[1:])
    after = owners(picker)
    moved = [after[key] for key in KEYS if after[key] != before[key]]
    assert len(moved) / len(KEYS) == pytest.approx(0.1, rel=0.34)
    assert set(moved) == {target.url for target in among[1:]}


@given(WEIGHTS, st.data())
def test_an_endpoint_whose_weight_rises_takes_keys_and_the_others_change_none(
    weights: list[float], data: st.DataObject
) -> None:
    """As during a slow start."""
    among = targets(*weights)
    rising = data.draw(st.sampled_from(among))
    keys = KEYS[:300]
    whole = rising.weight
    picker = ring(among)
    found = []
    for factor in (0.1, 0.4, 1.0):
        rising.weight = whole * factor
        picker.adopt(among)
        found.append(owners(picker, keys))
    for earlier, later in pairwise(found):
        assert all(later[key] in (url, rising.url) for key, url in earlier.items())


@pytest.mark.parametrize(
    ("weights", "unit"),
    [
        ((1,), 1),
        ((1, 1, 3), 1),
        ((0.3, 0.3), 1),
        ((4, 3.9), 1),
        ((100, 50), 256),
        ((10, 10), 16),
        ((0.01, 0.02), 1 / 256),
    ],
)
def test_the_number_of_points_is_bounded_for_any_weights(
    weights: tuple[float, ...], unit: float
) -> None:
    assert weight_unit(weights) == unit
    points = sum(POINTS * weight / unit for weight in weights)
    assert points <= 4 * POINTS * len(weights)


# bounded loads


def test_a_busy_owner_passes_keys_on_and_gets_them_back() -> None:
    among = targets(1, 1, 1, 1)
    picker = ring(among, max_load=1.25)
    owner = picker.pick(never, b"hot")
    owner.in_flight = 3
    for target in among:
        if target is not owner:
            target.in_flight = 3
    assert picker.pick(never, b"hot") is owner  # 3 < 1.25 x 13 / 4
    owner.in_flight = 5
    other = picker.pick(never, b"hot")  # 5 > 1.25 x 15 / 4
    assert other is not owner
    assert picker.pick(never, b"hot") is other
    owner.in_flight = 3
    assert picker.pick(never, b"hot") is owner


def test_without_a_bound_a_hot_key_stays() -> None:
    among = targets(1, 1, 1)
    picker = ring(among)
    picker.pick(never, b"hot").in_flight = 10_000
    assert len(set(owners(picker, [b"hot"] * 50).values())) == 1


@pytest.mark.parametrize("draw_key", [lambda i: b"hot", lambda i: b"user-%d" % (i % 7)])
@pytest.mark.parametrize("weights", [(1, 1, 1, 1, 1), (1, 2, 5)])
def test_no_endpoint_has_more_than_its_bound(
    weights: tuple[float, ...], draw_key: Callable[[int], bytes]
) -> None:
    among = targets(*weights)
    picker = ring(among, max_load=1.25)
    random = Random(5)
    working: list[Target] = []
    for i in range(3000):
        target = picker.pick(random.random, draw_key(i))
        target.in_flight += 1
        working.append(target)
        bound = 1.25 * len(working) * target.weight / sum(weights)
        assert target.in_flight < bound + 1
        while len(working) > 40 or (working and random.random() < 0.4):
            working.pop(random.randrange(len(working))).in_flight -= 1


def test_keys_that_are_not_hot_stay_while_another_is() -> None:
    among = urls(20)
    picker = ring(among, max_load=1.25)
    quiet = owners(picker)
    for target in among:
        target.in_flight = 8
    hot = picker.pick(never, b"hot")
    hot.in_flight = 30
    kept = sum(url == quiet[key] for key, url in owners(picker).items())
    assert kept / len(KEYS) == pytest.approx(0.95, abs=0.03)


def test_with_no_room_anywhere_the_less_busy_of_two_is_taken() -> None:
    """Requests in flight that nobody told of: the count of all lags behind."""
    among = targets(1, 1)
    picker = RingHash[Target]([1, 1], 1.25, lambda: 0)
    picker.adopt(among)
    among[0].in_flight, among[1].in_flight = 9, 8
    assert picker.pick(Random(1).random, b"key") is among[1]


# no key


def test_requests_without_a_key_go_where_it_is_least_busy() -> None:
    among = targets(1, 1)
    picker = ring(among)
    found = shares(picker, 4000, seed=6)
    assert found["a"] == pytest.approx(0.5, abs=0.04)
    among[0].in_flight = 1
    assert set(shares(picker, 100, seed=7)) == {"b"}
