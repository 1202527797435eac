"""What tells a policy from another, for its rollout."""

from typing import Any

import pytest

from router.policies import POLICIES
from router.policies.base import Pools, digest_of
from tests.policies.requests import options

POOLS: Pools = {"v1": {"a": 1.0, "b": 1.0}, "v2": {"c": 1.0, "d": 1.0}}
CANARY: dict[str, Any] = {
    "type": "canary",
    "stable": "v1",
    "canary": "v2",
    "sticky": {"client_ip": True},
    "steps": [{"weight": "10%", "hold": "1h"}, {"weight": "20%", "hold": "1h"}],
}
ROLLING: dict[str, Any] = {"type": "rolling", "from": "v1", "to": "v2"}


def digest(policy: dict[str, Any], pools: Pools = POOLS, **changes: Any) -> str:
    return digest_of(options(**policy | changes), pools)


def test_texts_that_mean_the_same_have_one_digest() -> None:
    spelled = [{"hold": "60m", "weight": 0.1}, {"weight": "20.0%", "hold": "3600s"}]
    short = {"from": "10%", "to": "20%", "step": "10%", "interval": "1h"}

    assert digest(CANARY) == digest(CANARY, steps=spelled) == digest(CANARY, steps=short)


def test_a_key_written_with_its_default_makes_no_difference() -> None:
    assert digest(CANARY, bake="0s", start="auto", keep="1h") == digest(CANARY)


@pytest.mark.parametrize(
    "changes",
    [
        {"bake": "1s"},
        {"guard": {}},
        {"start": "manual"},
        {"canary": "v3"},
        {"steps": [{"weight": "10%", "hold": "1h"}]},
        {"sticky": {"header": "x-user"}},
    ],
)
def test_another_policy_has_another_digest(changes: dict[str, Any]) -> None:
    assert digest(CANARY, **changes) != digest(CANARY)


def test_a_renewed_secret_starts_no_rollout_over() -> None:
    old, new = (
        {"gates": [{"name": "qa", "webhook": {"url": "http://qa", "secret": secret * 16}}]}
        for secret in "ab"
    )
    assert digest(CANARY, guard=old) == digest(CANARY, guard=new)


def test_endpoints_count_where_they_are_exchanged() -> None:
    more = {**POOLS, "v2": {"c": 1.0, "d": 1.0, "e": 1.0}}
    heavier = {**POOLS, "v2": {"c": 2.0, "d": 1.0}}
    turned = {**POOLS, "v2": {"d": 1.0, "c": 1.0}}
    others = {**POOLS, "v3": {"x": 1.0}}

    assert digest(CANARY, more) == digest(CANARY)
    assert digest(ROLLING, others) == digest(ROLLING)
    assert len({digest(ROLLING, pools) for pools in (POOLS, more, heavier, turned)}) == 4


@pytest.mark.parametrize("policy", [CANARY, ROLLING])
def test_another_revision_is_another_rollout(policy: dict[str, Any]) -> None:
    revised = [{**policy, "revision": text} for text in ("", "2", "3")]
    assert digest(policy) == digest(revised[0])
    assert len({digest(one) for one in revised}) == 3


def test_the_digest_stays_the_same_from_release_to_release() -> None:
    """A literal: were it to change, an upgrade would start every running rollout over."""
    assert digest(CANARY) == "b66e1417fe7d9f3cd6074da33f8dc0e6"


@pytest.mark.parametrize("kind", ["single", "ab", "bandit"])
def test_other_kinds_have_no_rollout(kind: str) -> None:
    listed = {"variants": [{"backend": "v1"}, {"backend": "v2"}]}
    policy = options(type=kind, **({"backend": "v1"} if kind == "single" else listed))

    assert policy.rollout(POOLS) is None
    assert not policy.is_measured
    assert policy.hold_bounds is None


def test_every_kind_that_has_a_rollout_is_measured() -> None:
    stepped = {kind for kind in POLICIES if "ready_timeout" in POLICIES[kind].model_fields}
    assert stepped == {"canary", "blue_green", "rolling", "recreate"}
