import json
from typing import Any

import pytest

from router.control.status import status
from router.messages import VariantState
from router.plan import PlanError, standings, standings_from
from router.plan.moves import Side
from router.policies import Variant
from tests.control.support import idle_plane, loaded

RAMP: dict[str, Any] = {
    "name": "ramp",
    "match": {"path": "/ramp"},
    "salt": "s",
    "policy": {
        "type": "canary",
        "stable": "v1",
        "canary": "v2",
        "sticky": {"cookie": "uid", "max_age": "1d"},
        "steps": [{"weight": "5%"}, {"weight": "50%"}],
    },
}
DRAINING: dict[str, Any] = {
    "name": "ab",
    "policy": {"type": "ab", "variants": [{"backend": "v1"}, {"backend": "v2", "state": "drain"}]},
}


def reported(**rollout: Any) -> dict[str, Any]:
    """A running router's status, with the rollout of `ramp` there."""
    document: dict[str, Any] = json.loads(
        json.dumps(status(idle_plane(loaded(routes=[RAMP, DRAINING]))))
    )
    document["routes"][0]["rollout"] = rollout or None
    return document


def test_a_config_alone_is_how_it_begins() -> None:
    ramp = standings(loaded(routes=[RAMP]).config)["ramp"]

    assert (ramp.policy, ramp.salt, ramp.at) == ("canary", "s", "")
    assert ramp.weights == {"v1": 1.0, "v2": 0.0}
    assert ramp.plan is not None and ramp.digest


def test_a_router_s_status_tells_where_a_rollout_is() -> None:
    document = reported(phase="progressing", at="step 1 of 2 (5%)", digest="d", old="v1", new="v2")
    document["routes"][0]["variants"] = [
        {"name": "v1", "weight": 0.95, "state": "active"},
        {"name": "v2", "weight": 0.05, "state": "active"},
    ]
    ramp = standings_from(document)["ramp"]

    assert (ramp.policy, ramp.salt, ramp.digest) == ("canary", "s", "d")
    assert ramp.at == "progressing, at step 1 of 2 (5%)"
    assert ramp.weights == {"v1": 0.95, "v2": 0.05}


def test_a_status_knows_states_and_routes_without_a_rollout() -> None:
    found = standings_from(reported())

    assert (found["ramp"].digest, found["ab"].sticky) == ("", None)
    assert found["ab"].variants[1] == Variant("v2", 0.5, VariantState.DRAIN)


def test_units_are_assigned_alike_by_a_status_and_by_its_config() -> None:
    weights = {"v1": 0.7, "v2": 0.3}
    by_config = standings(loaded(routes=[RAMP]).config)["ramp"]
    by_status = standings_from(reported())["ramp"]

    one, other = (Side(side, side.assignment(weights)) for side in (by_config, by_status))

    assert one.variants("unit") == other.variants("unit")
    assert one.identity == other.identity
    assert set(one.variants("unit")) == {"v1", "v2"}


@pytest.mark.parametrize(
    "document",
    [{}, {"routes": 1}, {"routes": [{"name": "r"}]}, {"routes": [{**DRAINING, "rollout": 1}]}],
)
def test_a_status_of_another_version_is_one_line(document: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match=r"is not that of this version .*--offline"):
        standings_from(document)
