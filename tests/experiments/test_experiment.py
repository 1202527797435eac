import pytest

from router.experiments.experiment import Earlier, Exposed, Kpi, Place
from router.experiments.sequential import Seen
from router.experiments.sums import Arm, Stratum
from tests.experiments.cases import CLICK, bits, experiment


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"control": "z"}, "control 'z' is none of a, b"),
        ({"variants": ("a", "a")}, "variant a is listed twice"),
        ({"kpis": (CLICK, CLICK)}, "kpi click is listed twice"),
        ({"alpha": 0.0}, "alpha 0.0 is not between 0 and 1"),
        ({"weights": {}}, "no weights"),
        (
            {"exposed": {Arm("a", Stratum("x", 3)): Exposed(1, 1)}},
            "no weights of version 3 of cell 'x'",
        ),
    ],
)
def test_an_experiment_that_contradicts_itself_is_refused(changes: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        experiment(**changes)


def test_an_effect_and_a_plan_must_be_above_nothing() -> None:
    with pytest.raises(ValueError, match=r"kpi click: effect 0\.0 is not above 0"):
        Kpi("click", effect=0.0)
    with pytest.raises(ValueError, match="kpi click: 0 planned units"):
        Kpi("click", planned=0)


def test_the_first_kpi_that_is_no_guardrail_is_primary() -> None:
    kpis = (Kpi("errors", is_guardrail=True), Kpi("click"), Kpi("revenue"))
    assert experiment(kpis=kpis).primary == "click"
    assert experiment(kpis=kpis[:1]).primary is None


def test_strata_of_a_cell_are_in_order_of_time() -> None:
    weights = {Stratum(cell, v): {"a": 0.5, "b": 0.5} for v in (2, 0, 1) for cell in ("y", "", "x")}
    given = experiment(weights=weights)
    assert given.cells == ("x", "y", "")
    assert given.strata("x") == (Stratum("x", 0), Stratum("x", 1), Stratum("x", 2))
    assert len(given.strata(None)) == 9


def test_units_are_what_was_assigned_where_they_stick() -> None:
    exposed = {Arm("a"): Exposed(requests=30, units=4)}
    assert experiment(exposed=exposed).assigned("a", Stratum()) == 30
    assert experiment(exposed=exposed, is_sticky=True).assigned("a", Stratum()) == 4
    assert experiment(exposed=exposed).exposures("b", None) == Exposed()


def test_variants_that_are_not_listed_are_left_out() -> None:
    sums = {"click": {Arm("a"): bits(5, 1), Arm("gone"): bits(9, 9)}}
    given = experiment(sums=sums)
    assert given.results("click", "a", None) == {Stratum(): bits(5, 1)}
    assert given.results("click", "b", None) == {}
    assert given.results("nothing", "a", None) == {}


def test_earlier_looks_are_restored_from_a_dump() -> None:
    seen = {Place("click", None, "b"): Seen(0.2, 0.1), Place("click", "au", "b"): Seen(0.3)}
    earlier = Earlier("a", seen, 7.5)
    assert Earlier.restore(earlier.dump()) == earlier


@pytest.mark.parametrize(
    "dumped",
    [
        {},
        {"version": 2},
        {"version": 1},
        {"version": 1, "control": "a", "mismatch": None, "seen": []},
        {"version": 1, "control": "a", "mismatch": 1.0, "seen": [["click"]]},
        {"version": 1, "control": "a", "mismatch": 1.0, "seen": 3},
    ],
)
def test_what_is_no_dump_of_earlier_looks_is_refused(dumped: dict) -> None:
    with pytest.raises(ValueError):
        Earlier.restore(dumped)
