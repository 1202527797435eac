"""The summary's checks: each fails when its promise is broken, and only then."""

from dataclasses import replace

import pytest

from router.demo.checks import Outcome, Reload, is_all_held, is_plausible, judge
from router.demo.readings import Reading
from router.demo.routes import AB, ANIMALS, BANDIT, CANARY, STABLE
from router.demo.tally import Answer, Tally

NO_FAILURE, RELOADED, STICKY, SHARES, SHADOWED, LEARNED = range(6)


def weights(canary: float = 0.3, bandit: float = 0.97) -> dict[tuple[str, str], float]:
    return {
        (route, variant): weight if variant == CANARY else 1 - weight
        for route, weight in ((ANIMALS.name, canary), (AB.name, 0.5), (BANDIT.name, bandit))
        for variant in (STABLE, CANARY)
    }


def good_tally() -> Tally:
    tally = Tally([ANIMALS.name, AB.name], window=100)
    for route, share in ((ANIMALS.name, 0.3), (AB.name, 0.5), (BANDIT.name, 0.9)):
        for number in range(200):
            variant = CANARY if number % 100 < share * 100 else STABLE
            tally.answered(Answer(route, f"user-{number % 100}", variant, True, 0.001))
    return tally


def good() -> Outcome:
    return Outcome(
        good_tally(),
        first=Reading(1, weights(canary=0.1, bandit=0.5), {}, 0),
        last=Reading(2, weights(), {"answered": 200}, 200),
        reload=Reload(2, 0.25, 50),
    )


def broken(outcome: Outcome) -> list[int]:
    return [place for place, check in enumerate(judge(outcome)) if not check.is_held]


def test_a_good_demo_holds_every_check() -> None:
    assert broken(good()) == []
    assert is_all_held(judge(good()))


def test_one_failed_request_is_reported_with_its_reason() -> None:
    outcome = good()
    outcome.tally.failed("animals: status 503")
    assert broken(outcome) == [NO_FAILURE]
    assert not is_all_held(judge(outcome))
    assert judge(outcome)[NO_FAILURE].text == (
        "1 of 601 requests failed\n      1 x animals: status 503"
    )


def test_a_demo_without_traffic_proves_nothing() -> None:
    outcome = replace(good(), tally=Tally([], window=100), last=Reading(2, weights(), {}, 0))
    assert broken(outcome) == [NO_FAILURE, STICKY, SHARES, SHADOWED]


def test_a_reload_that_was_never_seen_fails() -> None:
    assert broken(replace(good(), reload=None)) == [RELOADED]


def test_a_new_generation_with_the_old_weight_fails() -> None:
    outcome = replace(good(), last=Reading(2, weights(canary=0.1), {"answered": 200}, 200))
    assert RELOADED in broken(outcome)


def test_a_user_who_changed_variant_fails() -> None:
    outcome = good()
    outcome.tally.answered(Answer(AB.name, "user-99", CANARY, True, 0.001))
    assert broken(outcome) == [STICKY]


def test_a_share_far_from_its_weight_fails() -> None:
    outcome = good()
    outcome.tally.weights_changed(ANIMALS.name)
    for number in range(100):
        outcome.tally.answered(Answer(ANIMALS.name, f"new-{number}", STABLE, True, 0.001))
    assert broken(outcome) == [SHARES]


@pytest.mark.parametrize(
    ("copies", "received"), [({}, 0), ({"answered": 0, "failed": 9}, 9), ({"answered": 9}, 8)]
)
def test_copies_that_were_not_sent_or_did_not_arrive_fail(
    copies: dict[str, int], received: int
) -> None:
    assert broken(replace(good(), last=Reading(2, weights(), copies, received))) == [SHADOWED]


def test_a_bandit_that_did_not_move_to_the_better_model_fails() -> None:
    outcome = replace(good(), last=Reading(2, weights(bandit=0.5), {"answered": 200}, 200))
    assert broken(outcome) == [LEARNED]


@pytest.mark.parametrize(
    ("share", "weight", "answers", "expected"),
    [
        (0.5, 0.5, 100, True),
        (0.69, 0.5, 100, True),
        (0.71, 0.5, 100, False),
        (0.31, 0.5, 100, True),
        (0.29, 0.5, 100, False),
        (0.0, 0.3, 100, False),
        (0.5, 0.5, 0, False),
    ],
)
def test_a_share_is_plausible_within_four_standard_deviations(
    share: float, weight: float, answers: int, expected: bool
) -> None:
    assert is_plausible(share, weight, answers) is expected
