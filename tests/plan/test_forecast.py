import json
from typing import Any

import pytest

from router.config.model import Config
from router.plan import Fate, Forecast, Standing, forecast, render, standings, standings_from
from router.policies.base import digest_of
from tests.plan import support

RAMP: dict[str, Any] = {
    "type": "canary",
    "stable": "v1",
    "canary": "v2",
    "sticky": {"header": "x-user-id"},
    "steps": [{"weight": "5%"}, {"weight": "25%"}],
}
SWITCH: dict[str, Any] = {"type": "blue_green", "active": "v1", "preview": "v2"}
ROLLING: dict[str, Any] = {"type": "rolling", "from": "v1", "to": "v2"}
BANDIT: dict[str, Any] = {
    "type": "bandit", "variants": [{"backend": "v1"}, {"backend": "v2"}],
}  # fmt: skip
SINGLE: dict[str, Any] = {"type": "single", "backend": "v2"}


def config(policy: dict[str, Any], **changes: Any) -> Config:
    return support.config({"name": "r", "policy": policy, **changes})


def running(
    policy: dict[str, Any], share: float, at: str = "somewhere", phase: str = "progressing"
) -> dict[str, Standing]:
    """A router whose route `r` has this policy, v2 having this share now."""
    options = config(policy).routes[0].options
    sticky = {"header": "x-user-id"} if "sticky" in policy else None
    route: dict[str, Any] = {
        "name": "r", "policy": policy["type"], "salt": "r", "sticky": sticky, "rollout": None,
        "variants": [
            {"name": "v1", "weight": 1 - share, "state": "active"},
            {"name": "v2", "weight": share, "state": "active"},
        ],
    }  # fmt: skip
    if options.is_measured:
        digest = digest_of(options, config(policy).pools)
        pair = {"old": "v1", "new": "v2"}
        route["rollout"] = {"phase": phase, "at": at, "digest": digest, **pair}
    return standings_from({"routes": [route]})


def one(before: dict[str, Standing], new: Config) -> Forecast:
    (found,) = forecast(before, new)
    return found


def flows(found: Forecast) -> dict[str, float]:
    (case,) = found.cases
    return {f"{flow.old} -> {flow.new}": flow.share for flow in case.moves.flows}


def test_a_rollout_whose_policy_stays_goes_on_and_moves_nobody() -> None:
    spelled = {**RAMP, "steps": [{"weight": 0.05}, {"weight": 0.25, "hold": 0}]}
    found = one(running(RAMP, 0.25), config(spelled, match={"path": "/elsewhere"}))

    assert (found.fate, found.cases) == (Fate.GOES_ON, ())


def test_a_changed_policy_starts_over_and_takes_the_canary_s_users_back() -> None:
    found = one(running(RAMP, 0.25, "step 2 of 2 (25%)"), config({**RAMP, "bake": "1h"}))
    (case,) = found.cases

    assert found.fate is Fate.STARTS_OVER
    assert found.at == "progressing, at step 2 of 2 (25%)"
    assert list(flows(found)) == ["v2 -> v1"]
    assert abs(case.moves.share - 0.25) < 2 * case.moves.error
    assert found.steps == (0.05, 0.25, 1.0)


def test_what_is_promoted_stays_so_while_its_versions_do() -> None:
    promoted = running(RAMP, 1.0, "the end", "promoted")
    kept = one(promoted, config({**RAMP, "bake": "1h"}))
    backwards = one(promoted, config({**RAMP, "stable": "v2", "canary": "v1"}))

    assert (kept.fate, kept.cases, kept.steps) == (Fate.STAYS, (), ())
    assert render((kept,)).splitlines() == [
        "r: its rollout stays promoted (promoted, at the end): the policy changes",
        "  no unit moves",
    ]
    assert backwards.fate is Fate.STARTS_OVER


def test_what_was_rolled_back_starts_over() -> None:
    before = running(RAMP, 0.0, "the start", "rolled_back")
    assert one(before, config({**RAMP, "bake": "1h"})).fate is Fate.STARTS_OVER


def test_another_salt_deals_the_units_of_a_running_ramp_anew() -> None:
    found = one(running(RAMP, 0.25), config(RAMP, salt="another"))

    assert found.fate is Fate.GOES_ON
    assert set(flows(found)) == {"v1 -> v2", "v2 -> v1"}


def test_the_edit_after_promotion_drops_the_rollout_and_moves_nobody() -> None:
    found = one(running(RAMP, 1.0), config(SINGLE))
    assert (found.fate, found.cases) == (Fate.DROPPED, ())


def test_the_edit_before_promotion_moves_everyone_who_is_not_there_yet() -> None:
    found = one(running(RAMP, 0.25), config(SINGLE))
    assert flows(found)["v1 -> v2"] == pytest.approx(0.75, abs=0.02)


def test_a_rollout_of_a_route_that_had_none_starts() -> None:
    found = one(running(SINGLE | {"backend": "v1"}, 0.0), config(SWITCH))

    assert (found.fate, found.cases, found.is_manual) == (Fate.STARTS, (), True)
    assert found.steps == (1.0,)


def test_a_new_route_s_rollout_starts_and_a_removed_one_s_is_dropped() -> None:
    new = config(RAMP).model_copy(
        update={"routes": tuple(r.model_copy(update={"name": "q"}) for r in config(RAMP).routes)}
    )
    started, dropped = forecast(running(RAMP, 0.05), new)

    assert (started.route, started.fate, started.why) == ("q", Fate.STARTS, "the route is new")
    assert (dropped.route, dropped.fate) == ("r", Fate.DROPPED)


def test_another_endpoint_starts_an_exchange_over() -> None:
    more = {"endpoints": ["http://127.0.0.1:2", "http://127.0.0.1:3"]}
    route = {"name": "r", "policy": ROLLING}
    new = support.config(route, backends=support.BACKENDS | {"v2": more})
    found = one(running(ROLLING, 0.5), new)
    (case,) = found.cases

    assert found.fate is Fate.STARTS_OVER
    assert (case.moves.of, case.moves.share) == ("requests", 0.5)
    assert one(standings(config(ROLLING)), new).why == "the endpoints that it exchanges change"


def test_what_a_bandit_learned_is_kept() -> None:
    assert forecast(running(BANDIT, 0.9), config({**BANDIT, "reward": "click"})) == ()


def test_two_files_tell_every_place_where_a_rollout_may_be() -> None:
    found = one(standings(config(RAMP)), config({**RAMP, "canary": "v2", "start": "manual"}))

    assert found.fate is Fate.MAY_STAY
    assert [case.when for case in found.cases] == ["at its last step (25%)"]
    assert found.why == "routes[r].policy.start changes from auto to manual"


def test_the_account_for_people() -> None:
    ramp = one(running(RAMP, 0.25, "step 2 of 2 (25%)"), config({**RAMP, "bake": "1h"}))
    first, second, third = render((ramp,)).splitlines()

    assert first == (
        "r: its rollout starts over (progressing, at step 2 of 2 (25%)): the policy changes"
    )
    assert second.startswith("  2")
    assert second.endswith("% v2 -> v1") and "of units move (±0.8" in second
    assert third == "  then the new version gets 5%, 25%, all"
    assert render(()) == "no rollout would change, and no unit would move"
    drawn = {"type": "ab", "variants": [{"backend": "v1", "weight": 1}, {"backend": "v2",
             "weight": 1}]}  # fmt: skip
    assert render(forecast(running(drawn, 0.2), config(drawn))) == (
        "r: has no rollout\n  30% of requests get another variant: v1 80% -> 50%, v2 20% -> 50%"
    )


def test_the_account_as_json() -> None:
    found = one(running(RAMP, 0.25), config({**RAMP, "bake": "1h"}))
    document = json.loads(json.dumps(found.to_json()))

    assert document["fate"] == "starts over"
    assert document["cases"][0]["moves"]["flows"][0]["old"] == "v2"
