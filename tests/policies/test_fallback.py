"""Who answers for a variant without a healthy endpoint."""

from typing import Any

import pytest
from pydantic import ValidationError

from router.policies import POLICIES
from tests.policies.requests import options

LISTED: dict[str, Any] = {"variants": [{"backend": "a"}, {"backend": "b"}, {"backend": "c"}]}


def test_a_canary_falls_back_to_stable_which_has_none() -> None:
    sticky = {"header": "x-user-id"}
    policy = options(type="canary", stable="old", canary="new", weight="10%", sticky=sticky)
    assert (policy.fallback("new"), policy.fallback("old")) == ("old", None)


def test_a_single_backend_has_none() -> None:
    assert options(type="single", backend="v1").fallback("v1") is None


@pytest.mark.parametrize("kind", ["ab", "bandit"])
def test_others_fall_back_to_the_variant_that_is_named(kind: str) -> None:
    policy = options(type=kind, **LISTED, fallback="b")
    assert [policy.fallback(name) for name in "abc"] == ["b", None, "b"]
    assert options(type=kind, **LISTED).fallback("a") is None


@pytest.mark.parametrize("kind", ["ab", "bandit"])
@pytest.mark.parametrize("fallback", ["elsewhere", "b", "c"])
def test_a_fallback_is_an_active_variant(kind: str, fallback: str) -> None:
    variants = [{"backend": "a"}, {"backend": "b", "state": "drain"},
                {"backend": "c", "state": "off"}]  # fmt: skip
    with pytest.raises(ValidationError, match=f"fallback '{fallback}' is not an active variant: a"):
        options(type=kind, variants=variants, fallback=fallback)


ENDS: dict[str, Any] = {"from": "old", "to": "new"}
REQUIRED: dict[str, dict[str, Any]] = {
    "single": {"backend": "a"},
    "ab": {**LISTED, "fallback": "a"},
    "bandit": {**LISTED, "fallback": "a"},
    "canary": {"stable": "a", "canary": "b", "weight": 0.1, "sticky": {"client_ip": True}},
    "blue_green": {"active": "old", "preview": "new"},
    "rolling": ENDS,
    "recreate": ENDS,
}


def test_a_preview_falls_back_to_the_active_colour_which_never_does_to_it() -> None:
    policy = options(type="blue_green", **REQUIRED["blue_green"])
    assert (policy.fallback("new"), policy.fallback("old")) == ("old", None)


def test_of_two_versions_that_are_exchanged_either_answers_for_the_other() -> None:
    policy = options(type="rolling", **ENDS)
    assert (policy.fallback("new"), policy.fallback("old")) == ("old", "new")


def test_versions_that_never_run_beside_each_other_do_not_fall_back() -> None:
    policy = options(type="recreate", **ENDS)
    assert (policy.fallback("new"), policy.fallback("old")) == (None, None)


@pytest.mark.parametrize("kind", sorted(POLICIES))
def test_no_variant_of_any_kind_is_its_own_fallback(kind: str) -> None:
    policy = options(type=kind, **REQUIRED[kind])
    for variant in policy.variants():
        assert policy.fallback(variant.name) != variant.name
