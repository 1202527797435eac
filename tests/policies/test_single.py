from tests.policies.requests import Head, built, options


def test_everything_goes_to_the_one_backend_with_certainty() -> None:
    assignment = built(type="single", backend="v1")

    decision = assignment.assign(Head(), 0.999)

    assert (decision.variant, decision.propensity, decision.reason) == ("v1", 1.0, "single")
    assert decision.set_cookie is None
    assert assignment.weights == {"v1": 1.0}


def test_it_learns_nothing_and_warns_of_nothing() -> None:
    single = options(type="single", backend="v1")

    assert single.learner() is None
    assert single.warnings() == ()
    assert [(v.name, v.weight) for v in single.variants()] == [("v1", 1.0)]
