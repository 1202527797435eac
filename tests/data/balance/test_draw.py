from collections import Counter
from itertools import permutations
from random import Random

import pytest

from router.data.balance.draw import Draw
from tests.data.balance.targets import targets


@pytest.mark.parametrize("count", [2, 3, 32, 33, 100])
def test_of_equal_weights_every_pair_of_different_ones_is_as_likely(count: int) -> None:
    drawn = targets(*[1.0] * count)
    two, random = Draw(drawn).two, Random(1).random
    pairs = Counter(tuple(target.url for target in two(random)) for _ in range(50 * count * count))
    assert set(pairs) <= set(permutations([target.url for target in drawn], 2))
    firsts = Counter(pair[0] for pair in pairs.elements())
    seconds = Counter(pair[1] for pair in pairs.elements())
    # binomial: 50 * count each, standard deviation below sqrt(50 * count); five of them
    for counts in (firsts, seconds):
        assert all(abs(n - 50 * count) < 5 * (50 * count) ** 0.5 for n in counts.values())
        assert len(counts) == count


def test_one_follows_the_weights() -> None:
    one, random = Draw(targets(1.0, 3.0)).one, Random(2).random
    counts = Counter(one(random).url for _ in range(8000))
    assert abs(counts["a"] - 2000) < 195  # five standard deviations of binomial(8000, 1/4)


def test_each_of_two_follows_the_weights() -> None:
    two, random = Draw(targets(1.0, 3.0)).two, Random(3).random
    drawn = [two(random) for _ in range(8000)]
    for i in (0, 1):
        assert abs(sum(pair[i].url == "a" for pair in drawn) - 2000) < 195


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0), (1.0, 2.0)])
@pytest.mark.parametrize("u", [0.0, 1 - 2**-53])
def test_the_ends_of_the_range_are_targets(weights: tuple[float, ...], u: float) -> None:
    drawn = targets(*weights)
    draw = Draw(drawn)
    assert draw.one(lambda: u) in drawn
    assert set(map(id, draw.two(lambda: u))) <= set(map(id, drawn))


def test_one_target_is_both_of_two() -> None:
    (only,) = drawn = targets(2.0)
    assert Draw(drawn).two(lambda: 0.5) == (only, only)
