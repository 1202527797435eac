"""From the configuration to a picker."""

from random import Random
from typing import get_args

import pytest

from router.config.balance import Balance, BalanceType
from router.data.balance import build
from router.data.balance.base import Picker
from tests.data.balance.targets import Target, targets


def built(name: str, *weights: float) -> Picker[Target]:
    key = {"key": {"header": "x-user-id"}} if name == "ring_hash" else {}
    balance = Balance.model_validate({"type": name, **key})
    return build(balance, weights, Random(1).random, lambda: 0)


@pytest.mark.parametrize("name", get_args(BalanceType))
@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0), (0.5, 3.0), (1.0,) * 100])
def test_every_algorithm_picks_from_what_it_adopted(name: str, weights: tuple[float, ...]) -> None:
    among = targets(*weights)
    picker = built(name, *weights)
    picker.adopt(among)
    random = Random(2).random
    picked = {picker.pick(random, b"user-%d" % i).url for i in range(500 * len(weights))}
    assert picked == {target.url for target in among}


@pytest.mark.parametrize("name", get_args(BalanceType))
def test_what_left_is_not_picked_until_it_is_back(name: str) -> None:
    among = targets(1.0, 1.0, 1.0)
    picker = built(name, 1.0, 1.0, 1.0)
    random = Random(3).random
    for used in (among, among[:1], (), among[1:], among):
        picker.adopt(used)
        picked = {picker.pick(random, b"user-%d" % i).url for i in range(300) if used}
        assert picked == {target.url for target in used}


@pytest.mark.parametrize("name", get_args(BalanceType))
def test_only_latency_needs_to_be_told_of_answers(name: str) -> None:
    assert built(name, 1.0).needs_latency == (name == "peak_ewma")


def test_workers_begin_a_circle_at_different_places() -> None:
    among = targets(1.0, 1.0, 1.0)
    firsts = set()
    for seed in range(20):
        picker: Picker[Target] = build(
            Balance(type="round_robin"), (1.0,) * 3, Random(seed).random, lambda: 0
        )
        picker.adopt(among)
        firsts.add(picker.pick(Random(seed).random, b"").url)
    assert firsts == {"a", "b", "c"}
