import itertools
import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.messages import VariantState
from router.policies.base import Scope, Variant
from router.policies.hashing import Rendezvous
from router.policies.sticky import Sticky
from router.policies.weighted import ISSUE_TRIES, Plan, replaced
from tests.policies.requests import Head, built, scope, user

AB: dict[str, Any] = {"type": "ab", "sticky": {"cookie": "uid"}}


def variants(**states: str) -> list[dict[str, str]]:
    return [{"backend": name, "state": state} for name, state in states.items()]


def test_a_draining_variant_keeps_every_unit_it_has() -> None:
    before = built(**AB, variants=variants(a="active", b="active", c="active"))
    draining = built(**AB, variants=variants(a="active", b="drain", c="active"))

    for i in range(300):
        head = Head(cookies={b"uid": str(i).encode()})
        assert before.assign(head, 0.5) == draining.assign(head, 0.5)


def test_a_draining_variant_gets_no_random_request_and_no_issued_unit() -> None:
    policy: dict[str, Any] = {"type": "ab", "variants": variants(a="active", b="drain", c="active")}
    at_random, issuing = built(**policy), built(**policy, sticky={"cookie": "uid"})

    assert at_random.weights == {"a": 0.5, "b": 0.0, "c": 0.5}
    assert {at_random.assign(Head(), i / 100).variant for i in range(100)} == {"a", "c"}
    assert {issuing.assign(Head(), 0.5).variant for _ in range(100)} == {"a", "c"}


def test_an_issued_unit_gets_the_same_variant_when_it_comes_back() -> None:
    assignment = built(**AB, variants=variants(a="active", b="drain", c="active"))

    for _ in range(100):
        issued = assignment.assign(Head(), 0.5)
        assert issued.set_cookie is not None
        value = issued.set_cookie.removeprefix(b"uid=").partition(b";")[0]
        back = assignment.assign(Head(cookies={b"uid": value}), 0.9)
        assert (back.variant, back.reason, back.set_cookie) == (issued.variant, "sticky", None)


def test_a_unit_is_not_issued_when_none_would_land_on_an_active_variant() -> None:
    minted: list[str] = []
    rendezvous = Rendezvous("s", {"a": 0.5, "b": 0.5})
    landing_on_b = (
        f"{i:032x}" for i in itertools.count() if rendezvous.choose(b"%032x" % i) == "b"
    )

    def mint() -> str:
        minted.append(next(landing_on_b))
        return minted[-1]

    pair = (Variant("a", 0.5), Variant("b", 0.5, VariantState.DRAIN))
    plan = Plan(pair, Sticky.model_validate({"cookie": "uid"}))
    decision = plan.build(Scope("r", "s", mint)).assign(Head(), 0.5)

    assert (decision.variant, decision.reason, decision.set_cookie) == ("a", "random", None)
    assert len(minted) == ISSUE_TRIES


def test_only_the_units_of_a_variant_that_goes_off_move() -> None:
    before = built(**AB, variants=variants(a="active", b="active", c="active"))
    after = built(**AB, variants=variants(a="active", b="off", c="active"))

    moved = Counter[str]()
    for i in range(600):
        head = Head(cookies={b"uid": str(i).encode()})
        was, is_now = before.assign(head, 0.5).variant, after.assign(head, 0.5).variant
        if was != is_now:
            assert was == "b"
            moved[is_now] += 1
    assert 60 < moved["a"] < 140
    assert 60 < moved["c"] < 140


def test_an_override_may_force_a_draining_variant_but_not_one_that_is_off() -> None:
    assignment = built(
        type="ab",
        variants=variants(a="active", b="drain", c="off"),
        override={"header": "x-variant"},
    )

    assert assignment.assign(Head({b"x-variant": b"b"}), 0.5).reason == "override"
    assert assignment.assign(Head({b"x-variant": b"c"}), 0.5).reason == "random"


def test_an_override_issues_no_cookie() -> None:
    assignment = built(**AB, variants=variants(a="active"), override={"header": "x-variant"})

    assert assignment.assign(Head({b"x-variant": b"a"}), 0.5).set_cookie is None


def test_propensity_is_the_share_among_the_variants_that_could_be_chosen() -> None:
    policy: dict[str, Any] = {
        "type": "ab",
        "variants": [
            {"backend": "a", "weight": 1},
            {"backend": "b", "weight": 1},
            {"backend": "c", "weight": 2, "state": "drain"},
        ],
    }
    assert built(**policy).assign(Head(), 0.1).propensity == 0.5
    sticky = built(**policy, sticky={"cookie": "uid"})
    assert sticky.assign(Head(), 0.1).propensity == 0.5
    known = [sticky.assign(Head(cookies={b"uid": b"%d" % i}), 0.1) for i in range(50)]
    assert {(d.variant, d.propensity) for d in known} == {("a", 0.25), ("b", 0.25), ("c", 0.5)}


def test_decisions_without_a_cookie_are_shared_objects() -> None:
    sticky = built(type="ab", variants=variants(a="active"), sticky={"header": "x-user-id"})
    at_random = built(type="ab", variants=variants(a="active"))

    assert sticky.assign(user("1"), 0.1) is sticky.assign(user("2"), 0.9)
    assert sticky.assign(Head(), 0.1) is sticky.assign(Head(), 0.9)
    assert at_random.assign(Head(), 0.1) is at_random.assign(Head(), 0.9)


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=8), st.floats(0.0, 1.0))
def test_every_u_finds_a_variant_with_weight(weights: list[float], u: float) -> None:
    plan = Plan(tuple(Variant(str(i), w) for i, w in enumerate([*weights, 1.0])))
    assignment = plan.build(scope())

    assert assignment.weights[assignment.assign(Head(), u).variant] > 0.0
    assert sum(assignment.weights.values()) == pytest.approx(1.0, abs=1e-9)


def test_the_largest_u_finds_a_variant_though_shares_sum_to_less_than_one() -> None:
    largest, sums = math.nextafter(1.0, 0.0), []
    for count in range(1, 65):
        assignment = built(type="ab", variants=[{"backend": str(i)} for i in range(count)])
        sums.append(list(itertools.accumulate(assignment.weights.values()))[-1])
        assert assignment.assign(Head(), largest).variant == str(count - 1)
    assert min(sums) < 1.0


@given(
    st.binary(max_size=400), st.binary(max_size=400), st.text(max_size=40), st.sampled_from("hci")
)
def test_no_bytes_make_an_assignment_raise(
    one: bytes, two: bytes, client: str, source: str
) -> None:
    sticky = {"h": {"header": "x"}, "c": {"cookie": "x"}, "i": {"client_ip": True}}[source]
    assignment = built(
        type="canary",
        stable="a",
        canary="b",
        weight="10%",
        sticky=sticky,
        override={"header": "y"},
    )
    head = Head({b"x": one, b"y": two}, {b"x": two}, client)

    assert assignment.assign(head, 0.5).variant in ("a", "b")


THREE = (Variant("a", 0.5), Variant("b", 0.5), Variant("c", 0.0, VariantState.OFF))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (None, [0.5, 0.5, 0.0]),
        ({"a": 0.9, "b": 0.1}, [0.9, 0.1, 0.02]),
        ({"a": 0.9, "stranger": 0.1}, [0.9, 0.02, 0.02]),
        ({"a": 0.9, "b": float("nan")}, [0.9, 0.02, 0.02]),
        ({"a": float("inf"), "b": -1.0}, [0.02, 0.02, 0.02]),
        ({"a": 0.0, "b": 0.0, "c": 1.0}, [0.5, 0.5, 0.0]),
    ],
)
def test_weights_from_a_controller_replace_what_they_make_sense_for(
    weights: dict[str, float] | None, expected: list[float]
) -> None:
    assert [v.weight for v in replaced(THREE, weights, missing=0.02)] == expected
