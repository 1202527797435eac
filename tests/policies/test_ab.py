import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from router.policies import Scope
from router.policies.layers import HOLDOUT_CELL
from tests.policies.requests import Head, built, options, scope, user


def ab(*weights: object, **more: Any) -> dict[str, Any]:
    variants = [
        {"backend": name} | ({} if weight is None else {"weight": weight})
        for name, weight in zip("abcdefgh", weights, strict=False)
    ]
    return {"type": "ab", "variants": variants} | more


def shares(policy: dict[str, Any]) -> dict[str, float]:
    return {v.name: v.weight for v in options(**policy).variants()}


def test_weights_are_relative() -> None:
    assert shares(ab(1, 3)) == {"a": 0.25, "b": 0.75}
    assert shares(ab("25%", "75%")) == {"a": 0.25, "b": 0.75}
    assert shares(ab("10%", "30%")) == {"a": 0.25, "b": pytest.approx(0.75)}
    assert shares(ab(None, None, None, None)) == dict.fromkeys("abcd", 0.25)


def test_a_variant_that_is_off_counts_as_weight_zero() -> None:
    policy = ab(1, 1, 1)
    policy["variants"][1]["state"] = "off"

    assert shares(policy) == {"a": 0.5, "b": 0.0, "c": 0.5}


def test_without_sticky_the_random_number_decides() -> None:
    assignment = built(**ab(1, 2, 1))

    drawn = [assignment.assign(user("same"), i / 8) for i in range(8)]

    assert "".join(d.variant for d in drawn) == "aabbbbcc"
    assert {(d.reason, d.propensity) for d in drawn} == {("random", 0.25), ("random", 0.5)}


def test_a_sticky_request_without_a_unit_is_drawn_at_random() -> None:
    assignment = built(**ab(1, 1, sticky={"header": "x-user-id"}))

    assert assignment.assign(Head(), 0.1).variant == "a"
    assert assignment.assign(Head(), 0.9).variant == "b"
    assert assignment.assign(Head(), 0.9).reason == "random"
    assert assignment.assign(user("1"), 0.1) is assignment.assign(user("1"), 0.9)


def test_a_changed_weight_moves_no_unit_between_the_other_variants() -> None:
    before = built(**ab(1, 1, 1, sticky={"header": "x-user-id"}))
    after = built(**ab(1, 1, 4, sticky={"header": "x-user-id"}))

    moves = {
        (before.assign(user(str(i)), 0.5).variant, after.assign(user(str(i)), 0.5).variant)
        for i in range(500)
    }

    assert {(was, now) for was, now in moves if was != now} == {("a", "c"), ("b", "c")}


def test_an_added_variant_only_takes_units() -> None:
    before = built(**ab(1, 1, sticky={"header": "x-user-id"}))
    after = built(**ab(1, 1, 1, sticky={"header": "x-user-id"}))

    for i in range(500):
        was, now = (a.assign(user(str(i)), 0.5).variant for a in (before, after))
        assert now in (was, "c")


def test_an_override_names_a_variant_and_knows_no_always() -> None:
    assignment = built(**ab(1, 0, override={"header": "x-variant"}))

    assert assignment.assign(Head({b"x-variant": b"b"}), 0.1).reason == "override"
    assert assignment.assign(Head({b"x-variant": b"always"}), 0.1).reason == "random"


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (ab(), "at least 1 item"),
        (ab(0, 0), "no variant takes new units"),
        (ab(1, None), "give every variant a weight, or none"),
        (ab(-1, 1), "-1 is not a weight between 0 and 1000000"),
        (ab(float("nan"), 1), "nan is not a weight"),
        (ab(float("inf"), 1), "inf is not a weight between 0 and 1000000"),
        (ab(True, 1), "True is not a weight"),
        (ab("half", 1), "'half' is not a share"),
        (ab("120%", 1), "not a share between"),
        (ab(1, 1, segment=[]), "Extra inputs are not permitted"),
        ({"type": "ab", "variants": [{"backend": "a"}] * 2}, "backend a is listed twice"),
        ({"type": "ab", "variants": [{"backend": "a", "state": "off"}]}, "takes new units"),
        ({"type": "ab", "variants": [{"backend": "a", "state": "drain"}]}, "takes new units"),
        ({"type": "ab", "variants": [{"backend": "a", "state": "on"}]}, "Input should be"),
    ],
)
def test_what_cannot_be_is_refused(policy: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        options(**policy)


def test_shares_that_do_not_sum_to_100_percent_are_pointed_out() -> None:
    assert options(**ab("50%", "50%")).warnings() == ()
    assert options(**ab(1, 2)).warnings() == ()
    assert options(**ab(None, None)).warnings() == ()
    assert options(**ab("50%", "30%")).warnings() == (
        "the weights sum to 80%; they are relative: a 62.5%, b 37.5%",
    )


def segmented(*weights: object, **more: Any) -> dict[str, Any]:
    """Half and half, but `weights` in the segment `anz`."""
    variants = ab(*weights)["variants"]
    when = {"header": "x-country", "in": ["AU", "NZ"]}
    segment = {"name": "anz", "when": when, "variants": variants}
    return ab(1, 1, segments=[segment], sticky={"header": "x-user-id"}) | more


def person(unit: str, country: str = "") -> Head:
    head = user(unit)
    return Head(head.fields | {b"x-country": country.encode()})


def test_a_segment_has_weights_of_its_own() -> None:
    assignment = built(**segmented(0, 1))

    inside = {assignment.assign(person(str(i), "AU"), 0.5).variant for i in range(100)}
    outside = {assignment.assign(person(str(i), "AT"), 0.5).variant for i in range(100)}

    assert (inside, outside) == ({"b"}, {"a", "b"})
    assert assignment.assign(person("1", "NZ"), 0.5).cell == "anz"
    assert assignment.assign(person("1"), 0.5).cell == ""
    assert assignment.weights == {"a": 0.5, "b": 0.5}


def test_a_segment_may_have_variants_that_nobody_else_gets() -> None:
    policy = options(**segmented(1, 1, 2))
    assignment = policy.build(scope())

    assert [(v.name, v.weight) for v in policy.variants()] == [("a", 0.5), ("b", 0.5), ("c", 0.0)]
    assert policy.cells == ("anz",)
    got = [assignment.assign(person(str(i), "AU"), 0.5).variant for i in range(1000)]
    assert got.count("c") / 1000 == pytest.approx(0.5, abs=0.064)  # 4 standard errors
    assert "c" not in {assignment.assign(person(str(i)), 0.5).variant for i in range(1000)}


def test_equal_weights_give_a_unit_the_same_variant_in_every_segment() -> None:
    assignment = built(**segmented(1, 1))

    for i in range(300):
        here, there = (assignment.assign(person(str(i), c), 0.5).variant for c in ("AU", "AT"))
        assert here == there


def test_changing_a_segment_s_weights_moves_only_units_that_must() -> None:
    before, after = built(**segmented(1, 1)), built(**segmented(1, 3))

    for i in range(500):
        was, now = (a.assign(person(str(i), "AU"), 0.5).variant for a in (before, after))
        assert now in (was, "b")
        elsewhere = [a.assign(person(str(i)), 0.5).variant for a in (before, after)]
        assert elsewhere[0] == elsewhere[1]


def test_a_controller_sets_the_weights_of_a_cell() -> None:
    policy = options(**segmented(1, 1))
    set_ = policy.build(Scope("r", "s", lambda: "", None, {"anz": {"a": 0.0, "b": 1.0}}))

    assert {set_.assign(person(str(i), "AU"), 0.5).variant for i in range(50)} == {"b"}
    assert {set_.assign(person(str(i)), 0.5).variant for i in range(50)} == {"a", "b"}


@given(st.text(min_size=1, max_size=20), st.sampled_from(["AU", "AT", ""]), st.floats(0, 0.999))
def test_a_unit_gets_the_same_variant_whoever_asks(unit: str, country: str, u: float) -> None:
    """In every worker and after every restart: nothing but the config and the request counts."""
    policy = segmented(1, 2, experiment={"layer": "l", "share": "50%", "holdout": "10%"})
    here, there = built(**policy), built(**policy)

    first = here.assign(person(unit, country), u)
    assert there.assign(person(unit, country), 0.5) == first


def experimenting(**more: Any) -> dict[str, Any]:
    experiment = {"layer": "checkout", "share": "50%", "holdout": "10%"}
    return ab(0, 1, sticky={"header": "x-user-id"}, experiment=experiment) | more


def test_units_that_do_not_take_part_get_the_control() -> None:
    assignment = built(**experimenting())
    got = [assignment.assign(person(str(i)), 0.5) for i in range(2000)]

    assert {(d.variant, d.reason, d.cell) for d in got} == {
        ("b", "sticky", ""),
        ("a", "outside", ""),
        ("a", "holdout", HOLDOUT_CELL),
    }
    inside = sum(d.reason == "sticky" for d in got) / 2000
    assert inside == pytest.approx(0.5, abs=0.045)  # 4 standard errors


def test_a_request_without_a_unit_takes_no_part() -> None:
    decision = built(**experimenting()).assign(Head(), 0.99)

    assert (decision.variant, decision.reason) == ("a", "no_unit")


def test_an_issued_unit_takes_part_or_not_as_it_will_ever_after() -> None:
    policy = experimenting(sticky={"cookie": "uid"})
    numbers = itertools.count()
    assignment = options(**policy).build(Scope("r", "animals", lambda: f"{next(numbers):032x}"))

    for _ in range(300):
        first = assignment.assign(Head(), 0.5)
        assert first.set_cookie is not None
        assert first.set_cookie.startswith(b"uid=" + first.unit)
        again = assignment.assign(Head(cookies={b"uid": first.unit}), 0.5)
        assert (again.variant, again.reason, again.cell) == (
            first.variant, first.reason, first.cell
        )  # fmt: skip


def test_an_override_goes_before_segments_and_experiments() -> None:
    assignment = built(**experimenting(override={"header": "x-variant"}))

    for i in range(50):
        head = Head(person(str(i)).fields | {b"x-variant": b"b"})
        assert assignment.assign(head, 0.5).reason == "override"


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (experimenting(sticky=None), "an experiment is of units: say with sticky what they are"),
        (
            experimenting(experiment={"layer": "l", "control": "z"}),
            "control 'z' is not an active variant: a, b",
        ),
        (segmented(0, 0), "no variant takes new units"),
        (segmented(), "at least 1 item"),
        (ab(1, segments=[{"variants": [{"backend": "a"}]}]), "Field required"),
        (
            ab(1, segments=segmented(1)["segments"] * 2),
            "the segment name 'anz' is taken by segment 1",
        ),
        (ab(1, segments=segmented(1)["segments"] * 65), "at most 64 items"),
    ],
)
def test_segments_and_experiments_that_cannot_be_are_refused(
    policy: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        options(**policy)


def test_shares_of_a_segment_that_do_not_sum_to_100_percent_are_pointed_out() -> None:
    assert options(**segmented("50%", "30%")).warnings() == (
        "anz: the weights sum to 80%; they are relative: a 62.5%, b 37.5%",
    )


def test_the_code_on_the_page_agrees_with_the_router() -> None:
    page = (Path(__file__).parents[2] / "docs/policies/ab.md").read_text()
    match = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert match is not None
    namespace: dict[str, Any] = {}
    exec(match[1], namespace)  # noqa: S102 - the page's own code is what is tested
    assignment = built(
        **ab(1, 3, sticky={"header": "x-user-id"})
        | {"experiment": {"layer": "checkout", "share": "40%", "start": "10%", "holdout": "5%"}}
    )

    for i in range(500):
        unit = f"user-{i}"
        decision = assignment.assign(person(unit), 0.5)
        variant = namespace["assign"](unit.encode())
        assert variant == (decision.variant if decision.reason == "sticky" else decision.reason)
    done = subprocess.run(
        [sys.executable, "-I", "-c", match[1]], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{namespace['assign'](b'user-42')}\n"
