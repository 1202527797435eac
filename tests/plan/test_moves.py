import math
from typing import Any

import pytest

from router.plan.moves import UNITS, Flow, Moves, Side, moves_between
from router.plan.standing import standings
from tests.plan.support import config

USER = {"header": "x-user-id"}


def side(weights: dict[str, float], sticky: dict[str, Any] | None = USER, salt: str = "s") -> Side:
    """An ab policy of v1 and v2 with these weights."""
    variants = [{"backend": name, "weight": weight} for name, weight in weights.items()]
    policy = {"type": "ab", "variants": variants} | ({"sticky": sticky} if sticky else {})
    standing = standings(config({"name": "r", "salt": salt, "policy": policy}))["r"]
    return Side(standing, standing.assignment(standing.weights))


def moves(old: Side, new: Side) -> Moves:
    return moves_between(old, new)


def test_raising_a_weight_moves_that_share_and_only_that_way() -> None:
    found = moves(side({"v1": 0.9, "v2": 0.1}), side({"v1": 0.7, "v2": 0.3}))

    assert [(flow.old, flow.new) for flow in found.flows] == [("v1", "v2")]
    assert abs(found.share - 0.2) < 2 * found.error
    assert found.error == pytest.approx(2 * math.sqrt(found.share * (1 - found.share) / UNITS))
    assert found.of == "units"


def test_a_new_salt_deals_every_unit_anew() -> None:
    found = moves(side({"v1": 0.7, "v2": 0.3}), side({"v1": 0.7, "v2": 0.3}, salt="t"))

    assert abs(found.share - 2 * 0.7 * 0.3) < 2 * found.error
    assert {(flow.old, flow.new) for flow in found.flows} == {("v1", "v2"), ("v2", "v1")}


def test_units_known_by_something_else_are_dealt_anew() -> None:
    found = moves(side({"v1": 0.7, "v2": 0.3}), side({"v1": 0.7, "v2": 0.3}, {"cookie": "uid"}))

    assert abs(found.share - 2 * 0.7 * 0.3) < 2 * found.error
    assert found.note == "users are known by something else, and dealt anew"


def test_how_long_a_cookie_lasts_moves_nobody() -> None:
    short, long = ({"cookie": "uid", "max_age": age} for age in ("1d", "30d"))
    found = moves(side({"v1": 0.7, "v2": 0.3}, short), side({"v1": 0.7, "v2": 0.3}, long))

    assert (found.share, found.error, found.note) == (0.0, 0.0, "")


@pytest.mark.parametrize("sticky", [USER, None])
def test_from_all_to_all_is_exact(sticky: dict[str, Any] | None) -> None:
    found = moves(side({"v1": 1, "v2": 0}, sticky), side({"v1": 0, "v2": 1}))

    assert (found.share, found.error, found.flows) == (1.0, 0.0, (Flow("v1", "v2", 1.0),))


def test_a_share_that_is_too_small_to_be_seen_is_not_called_none() -> None:
    found = moves(side({"v1": 1, "v2": 0}), side({"v1": 1, "v2": 0.000001}))

    assert found.share == 0.0
    assert found.error == 3 / UNITS


def test_where_requests_are_drawn_their_shares_are_compared() -> None:
    found = moves(side({"v1": 0.7, "v2": 0.3}, None), side({"v1": 0.5, "v2": 0.5}, None))

    assert (found.of, found.share, found.error, found.flows) == ("requests", 0.2, 0.0, ())
    assert (found.before, found.after) == ({"v1": 0.7, "v2": 0.3}, {"v1": 0.5, "v2": 0.5})


def test_whether_units_stay_with_their_variant_is_told() -> None:
    kept, drawn = side({"v1": 0.7, "v2": 0.3}), side({"v1": 0.7, "v2": 0.3}, None)

    assert moves(kept, drawn).note == "units no longer stay with their variant"
    assert moves(drawn, kept).note == "from then on units stay with their variant"
    assert moves(side({"v1": 1, "v2": 0}, None), drawn).note == ""
