from typing import Any

import pytest
from pydantic import ValidationError

from tests.policies.requests import Head, built, options, user


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
        (ab(1, 1, segments=[]), "Extra inputs are not permitted"),
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
