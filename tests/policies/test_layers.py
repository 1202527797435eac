from typing import Any

import pytest
from pydantic import ValidationError

from router.policies.hashing import Rendezvous
from router.policies.layers import (
    HOLDOUT_CELL,
    Admission,
    Experiment,
    conflicts,
    place_of,
    slots,
)

UNITS = [f"user-{i}".encode() for i in range(10_000)]


def experiment(**fields: Any) -> Experiment:
    return Experiment.model_validate({"layer": "checkout"} | fields)


def reasons(of: dict[str, Experiment], route: str) -> list[str]:
    """What becomes of each of `UNITS`: `in`, `outside` or `holdout`."""
    decide = Admission(slots(of)[route], "control").decide
    return [getattr(decide(unit), "reason", "in") for unit in UNITS]


def test_no_unit_is_in_two_experiments_of_one_layer() -> None:
    layer = {
        "a": experiment(share="30%", holdout="5%"),
        "b": experiment(share="25%"),
        "c": experiment(share="40%"),
    }
    whole = list(zip(*(reasons(layer, route) for route in layer), strict=True))

    assert all(unit.count("in") <= 1 for unit in whole)
    assert all(unit == ("holdout",) * 3 for unit in whole if "holdout" in unit)
    # the layer is full: who is not held out is in one. 4 standard errors of 10,000 draws
    assert {unit.count("in") for unit in whole if "holdout" not in unit} == {1}
    for place, share in enumerate((0.3, 0.25, 0.4)):
        taken = sum(unit[place] == "in" for unit in whole) / len(UNITS)
        assert taken == pytest.approx(share, abs=4 * (share * (1 - share) / len(UNITS)) ** 0.5)
    held_out = sum("holdout" in unit for unit in whole) / len(UNITS)
    assert held_out == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / len(UNITS)) ** 0.5)


def test_units_of_another_layer_are_drawn_by_themselves() -> None:
    layer = {"a": experiment(share="50%"), "b": experiment(layer="search", share="50%")}
    both = sum(
        x == y == "in" for x, y in zip(reasons(layer, "a"), reasons(layer, "b"), strict=True)
    )

    assert both / len(UNITS) == pytest.approx(0.25, abs=0.018)  # 4 standard errors


def test_the_place_in_a_layer_says_nothing_of_the_variant() -> None:
    """Even when both have the same salt."""
    rendezvous = Rendezvous("checkout", {"v1": 0.5, "v2": 0.5})
    inside = [unit for unit in UNITS if place_of("checkout", unit) < 0.5]
    share = sum(rendezvous.choose(unit) == "v1" for unit in inside) / len(inside)

    assert share == pytest.approx(0.5, abs=0.03)  # 4 standard errors of 5,000


def test_an_experiment_that_grows_keeps_its_units() -> None:
    small, large = ({"a": experiment(share=share)} for share in (0.2, 0.5))
    pairs = zip(reasons(small, "a"), reasons(large, "a"), strict=True)

    assert {now for was, now in pairs if was == "in"} == {"in"}


def test_a_range_that_was_set_stays_when_others_go() -> None:
    b = experiment(share="20%", start="40%")
    before = reasons({"a": experiment(share="30%"), "b": b}, "b")

    assert reasons({"b": b}, "b") == before


def test_another_salt_draws_units_anew() -> None:
    was = reasons({"a": experiment(share="50%")}, "a")
    now = reasons({"a": experiment(share="50%", salt="anew")}, "a")

    assert sum(x == y for x, y in zip(was, now, strict=True)) / len(UNITS) == pytest.approx(
        0.5, abs=0.02
    )  # 4 standard errors


def test_who_is_held_out_gets_the_control_and_is_told_apart() -> None:
    of = {"a": experiment(share="10%", holdout="50%")}
    decide = Admission(slots(of)["a"], "v1").decide
    held_out = next(unit for unit in UNITS if place_of("checkout", unit) < 0.5)
    outside = next(unit for unit in UNITS if place_of("checkout", unit) > 0.6)
    assert (first := decide(held_out)) and (second := decide(outside))

    assert (first.variant, first.reason, first.cell) == ("v1", "holdout", HOLDOUT_CELL)
    assert (second.variant, second.reason, second.cell) == ("v1", "outside", "")


def test_the_last_place_of_a_layer_belongs_to_the_last_experiment() -> None:
    thirds = {name: experiment(share=1 / 3) for name in "abc"}

    assert list(conflicts(thirds)) == []
    assert slots(thirds)["c"].end > 1.0
    assert slots(thirds)["b"].start == slots(thirds)["a"].end


@pytest.mark.parametrize(
    ("layer", "route", "message"),
    [
        (
            {"a": {"share": 0.6}, "b": {"share": 0.5}},
            "b",
            "layer checkout is full: this would end at 110% of it",
        ),
        (
            {"a": {"share": 0.6}, "b": {"share": 0.2, "start": 0.5}},
            "b",
            "50% to 70% of layer checkout overlaps the experiment of route a",
        ),
        (
            {"a": {"share": 0.1}, "b": {"share": 0.1, "salt": "x"}},
            "b",
            "another experiment of layer checkout has another salt",
        ),
        (
            {"a": {"share": 0.1, "holdout": 0.1}, "b": {"share": 0.1, "holdout": 0.2}},
            "b",
            "another experiment of layer checkout has another holdout",
        ),
        (
            {"a": {"share": 0.1, "start": 0}, "b": {"share": 0.1, "holdout": 0.2}},
            "a",
            "its range overlaps the holdout, the first 20%",
        ),
    ],
)
def test_experiments_that_do_not_fit_in_their_layer_are_told(
    layer: dict[str, Any], route: str, message: str
) -> None:
    found = list(conflicts({name: experiment(**one) for name, one in layer.items()}))

    assert found[0] == (route, message)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"share": 0}, "greater than 0"),
        ({"layer": "a b"}, "should match pattern"),
        ({"share": 0.5, "start": 0.6}, "it would end at 110% of the layer, past 100%"),
        ({"share": 0.9, "holdout": 0.2}, "it would end at 110%"),
        ({"share": 0.5, "start": 0.1, "holdout": 0.2}, "start 10% is within the holdout, 20%"),
        ({"holdout": 1}, "less than 1"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        experiment(**fields)
