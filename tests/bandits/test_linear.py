import numpy as np
import pytest

from router.bandits.arms import Pulls
from router.bandits.linear import Linear, cholesky, solve

VECTORS = {"au": (1.0, 1.0, 0.0), "nz": (1.0, 0.0, 1.0), "other": (1.0, 0.0, 0.0)}


def won(n: float, total: float) -> Pulls:
    return Pulls(n, total, total)


def test_the_factor_and_the_substitution_agree_with_numpy() -> None:
    generator = np.random.default_rng(1)
    half = generator.normal(size=(16, 16))
    a, b = half @ half.T + np.eye(16), generator.normal(size=16)
    factor = cholesky(a.tolist())

    for line, wanted in zip(factor, np.linalg.cholesky(a), strict=True):
        assert line == pytest.approx(list(wanted[: len(line)]))
    u = solve(factor, b.tolist())
    assert sum(x * x for x in u) == pytest.approx(float(b @ np.linalg.solve(a, b)))


def test_shares_agree_with_draws_from_the_posterior() -> None:
    cells = {
        "au": [won(40, 12), won(50, 9)],
        "nz": [won(30, 5), won(20, 6)],
        "other": [won(60, 12), won(45, 10)],
    }
    arms = [arm for row in cells.values() for arm in row]
    n = sum(arm.n for arm in arms)
    centre, spread = sum(a.total for a in arms) / n, sum(a.deviations for a in arms) / n
    generator = np.random.default_rng(2)
    draws = []
    for k in range(2):
        a, b = np.eye(3), np.zeros(3)
        for cell, row in cells.items():
            x = np.array(VECTORS[cell])
            a += row[k].n * np.outer(x, x)
            b += (row[k].total - row[k].n * centre) * x
        inverse = np.linalg.inv(a)
        draws.append(generator.multivariate_normal(inverse @ b, spread * inverse, 200_000))
    found = Linear(VECTORS).shares(cells)

    for cell, x in VECTORS.items():
        wanted = float(np.mean(draws[0] @ np.array(x) > draws[1] @ np.array(x)))
        assert found[cell][0] == pytest.approx(wanted, abs=0.0055)


def test_what_one_combination_teaches_of_a_value_holds_in_another() -> None:
    vectors = {"a,x": (1.0, 1.0, 1.0), "a": (1.0, 1.0, 0.0), "x": (1.0, 0.0, 1.0)}
    cells = {
        "a,x": [Pulls(), Pulls()],
        "a": [won(400, 40), won(400, 200)],
        "x": [won(400, 100), won(400, 100)],
    }

    assert Linear(vectors).shares(cells)["a,x"][1] > 0.7


def test_of_no_rewards_all_shares_are_equal_and_unknown_cells_are_left_out() -> None:
    linear = Linear(VECTORS)

    assert linear.shares({"au": [Pulls(), Pulls()]}) == {"au": [0.5, 0.5]}
    assert linear.shares({"mars": [won(5, 1), won(5, 2)]}) == {}
