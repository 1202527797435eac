"""Counting what users saw: stickiness, shares, latencies."""

import pytest

from router.demo.tally import Answer, Stickiness, Tally, VariantTally


def seen(*visits: tuple[str, str]) -> Stickiness:
    stickiness = Stickiness()
    for user, variant in visits:
        stickiness.observe("animals", user, variant)
    return stickiness


def test_a_user_who_keeps_their_variant_is_no_violation() -> None:
    stickiness = seen(("ann", "v1"), ("bob", "v2"), ("ann", "v1"), ("bob", "v2"))
    assert (stickiness.returns, stickiness.moves, stickiness.violations) == (2, 0, 0)


def test_a_user_who_meets_another_variant_is_a_violation() -> None:
    stickiness = seen(("ann", "v1"), ("ann", "v2"), ("ann", "v1"))
    assert (stickiness.returns, stickiness.moves, stickiness.violations) == (2, 0, 2)


def test_a_user_may_meet_other_variants_on_other_routes() -> None:
    stickiness = seen(("ann", "v1"))
    stickiness.observe("ab", "ann", "v2")
    assert (stickiness.returns, stickiness.violations) == (0, 0)


def test_after_a_weight_rose_users_may_move_to_that_variant_but_not_back() -> None:
    stickiness = seen(("ann", "v1"), ("bob", "v2"))
    stickiness.permit("animals", "v2")
    stickiness.observe("animals", "ann", "v2")
    assert (stickiness.moves, stickiness.violations) == (1, 0)
    stickiness.observe("animals", "bob", "v1")
    assert (stickiness.moves, stickiness.violations) == (1, 1)


def test_a_permission_is_for_one_route() -> None:
    stickiness = seen(("ann", "v1"))
    stickiness.permit("ab", "v2")
    stickiness.observe("animals", "ann", "v2")
    assert stickiness.violations == 1


def answer(variant: str, route: str = "animals", *, is_correct: bool = True) -> Answer:
    return Answer(route, "ann", variant, is_correct, 0.001)


def test_routes_that_are_not_sticky_have_no_violations() -> None:
    tally = Tally(sticky=["animals"], window=10)
    for variant in ("v1", "v2"):
        tally.answered(answer(variant, "bandit"))
    assert tally.stickiness.violations == 0
    for variant in ("v1", "v2"):
        tally.answered(answer(variant))
    assert tally.stickiness.violations == 1


def test_a_share_is_that_of_the_last_answers_only() -> None:
    tally = Tally(sticky=[], window=4)
    for variant in ("v1", "v1", "v1", "v1", "v2", "v2", "v2"):
        tally.answered(answer(variant))
    assert (tally.share("animals", "v1"), tally.share("animals", "v2")) == (0.25, 0.75)
    assert tally.variant("animals", "v1").requests == 4


def test_a_share_starts_anew_when_weights_change() -> None:
    tally = Tally(sticky=[], window=100)
    tally.answered(answer("v1"))
    tally.weights_changed("animals")
    assert (tally.share("animals", "v1"), tally.recent("animals")) == (0.0, 0)
    tally.answered(answer("v2"))
    assert (tally.share("animals", "v2"), tally.recent("animals")) == (1.0, 1)


def test_right_answers_and_failures_are_counted() -> None:
    tally = Tally(sticky=[], window=100)
    tally.answered(answer("v1", is_correct=True))
    tally.answered(answer("v1", is_correct=False))
    tally.failed("animals: status 503")
    assert tally.variant("animals", "v1").correct == 1
    assert (tally.requests, dict(tally.failures)) == (3, {"animals: status 503": 1})


@pytest.mark.parametrize(("quantile", "expected"), [(0.0, 1.0), (0.5, 51.0), (0.99, 100.0)])
def test_a_latency_quantile_is_one_of_the_samples(quantile: float, expected: float) -> None:
    variant = VariantTally()
    variant.latencies_s.extend(float(n) for n in range(100, 0, -1))
    assert variant.latency_s(quantile) == expected


def test_without_samples_a_latency_is_zero() -> None:
    assert VariantTally().latency_s(0.99) == 0.0
