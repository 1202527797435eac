import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policies.hashing import Rendezvous

NAMES = st.text(min_size=1, max_size=8)
WEIGHTS = st.dictionaries(NAMES, st.floats(0.01, 100.0), min_size=2, max_size=6)
UNITS = st.lists(st.binary(max_size=40), min_size=1, max_size=20)


def test_known_units_keep_their_variants_forever() -> None:
    chooser = Rendezvous("animals", {"cat-dog": 0.75, "cat-dog-koala": 0.25})

    chosen = [chooser.choose(f"user-{i}".encode()) for i in range(16)]

    letters = "".join("k" if name == "cat-dog-koala" else "c" for name in chosen)
    assert letters == "kkckccccccckkkcc"


def test_shares_of_units_equal_the_weights() -> None:
    weights = {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05}
    chooser = Rendezvous("s", weights)
    total = 40_000
    counts = dict.fromkeys(weights, 0)
    for i in range(total):
        counts[chooser.choose(str(i).encode())] += 1

    for name, weight in weights.items():  # 4.5 standard deviations of a binomial
        assert abs(counts[name] / total - weight) < 4.5 * math.sqrt(weight * (1 - weight) / total)


@given(WEIGHTS, UNITS, st.data())
def test_changing_one_weight_moves_units_only_into_or_out_of_that_variant(
    weights: dict[str, float], units: list[bytes], data: st.DataObject
) -> None:
    changed = data.draw(st.sampled_from(sorted(weights)))
    factor = data.draw(st.floats(0.01, 100.0))
    before = Rendezvous("s", weights)
    after = Rendezvous("s", weights | {changed: weights[changed] * factor})

    for unit in units:
        was, is_now = before.choose(unit), after.choose(unit)
        if was != is_now:
            assert changed == (is_now if factor > 1 else was)


@given(WEIGHTS, UNITS, st.randoms(use_true_random=False))
def test_the_order_of_variants_does_not_matter(
    weights: dict[str, float], units: list[bytes], generator: object
) -> None:
    items = list(weights.items())
    generator.shuffle(items)  # type: ignore[attr-defined]  # hypothesis types it as object
    chooser, shuffled = Rendezvous("s", weights), Rendezvous("s", dict(items))

    assert [chooser.choose(u) for u in units] == [shuffled.choose(u) for u in units]


@given(WEIGHTS, UNITS)
def test_a_variant_without_weight_is_as_if_it_were_not_there(
    weights: dict[str, float], units: list[bytes]
) -> None:
    chooser = Rendezvous("s", weights)
    with_idle = Rendezvous("s", weights | {"an idle variant": 0.0})

    assert [chooser.choose(u) for u in units] == [with_idle.choose(u) for u in units]


def test_salt_and_name_cannot_run_into_each_other() -> None:
    left = Rendezvous("ab", {"c": 1.0, "x": 1.0})
    right = Rendezvous("a", {"bc": 1.0, "x": 1.0})
    units = [str(i).encode() for i in range(200)]

    agreeing = sum((left.choose(u) == "c") == (right.choose(u) == "bc") for u in units)

    assert 60 < agreeing < 140


def test_another_salt_draws_units_anew() -> None:
    left, right = (Rendezvous(salt, {"a": 1.0, "b": 1.0}) for salt in ("one", "two"))
    units = [str(i).encode() for i in range(200)]

    assert 60 < sum(left.choose(u) == right.choose(u) for u in units) < 140


def test_no_weight_above_zero_is_an_error() -> None:
    with pytest.raises(ValueError, match="no variant has a weight above 0"):
        Rendezvous("s", {"a": 0.0})


def test_another_process_with_another_hash_seed_agrees() -> None:
    code = (
        "from router.policies.hashing import Rendezvous\n"
        "chooser = Rendezvous('s', {'a': 0.2, 'b': 0.3, 'c': 0.5})\n"
        "print(''.join(chooser.choose(str(i).encode()) for i in range(500)), end='')"
    )
    here = Rendezvous("s", {"c": 0.5, "b": 0.3, "a": 0.2})
    expected = "".join(here.choose(str(i).encode()) for i in range(500))

    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == expected
