"""What the rollouts of a config stand on: the plan of each route that has one, and its digest."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from router.config.diff import compare_policies
from router.config.model import Config
from router.policies import Options
from router.policies.base import digest_of
from router.rollouts.plan import Plan

_PAIR_KEYS: Final = ("type", "stable", "canary", "active", "preview", "old", "new")


@dataclass(frozen=True, slots=True)
class Ground:
    """The policy of a route. `digest` tells one policy from another; `marks` are digests of its
    keys, so that a later run of the program can name what changed (values may be secret)."""

    route: str
    options: Options
    plan: Plan
    digest: str
    marks: Mapping[str, str]

    def is_of_pair(self, kept: Mapping[str, Any]) -> bool:
        """Whether a rollout that was kept (see `Rollout.record`) is between the same variants."""
        if "pair" in kept:
            return list(kept["pair"]) == [self.plan.old, self.plan.new]
        # written before the pair was: the keys that name it tell
        marks = kept.get("marks", {})
        return all(marks.get(key) == self.marks.get(key) for key in _PAIR_KEYS)


def grounds_of(config: Config) -> dict[str, Ground]:
    """Of every route that has a rollout."""
    grounds: dict[str, Ground] = {}
    for route in config.routes:
        plan = route.options.rollout(config.pools)
        if plan is not None:
            digest = digest_of(route.options, config.pools)
            marks = _marks(route.options)
            grounds[route.name] = Ground(route.name, route.options, plan, digest, marks)
    return grounds


def changed(earlier: Options | None, marks: Mapping[str, str], now: Ground) -> str:
    """What is another in the policy: by the options of before, or only by their marks.

    Empty when it is not the policy itself: its endpoints changed.
    """
    if earlier is not None:
        changes = compare_policies(now.route, earlier, now.options)
        return "; ".join(change.sentence for change in changes)
    names = marks.keys() | now.marks.keys()
    other = sorted(name for name in names if marks.get(name) != now.marks.get(name))
    return f"{', '.join(other)} changed" if other else ""


def _marks(options: Options) -> dict[str, str]:
    return {
        key: blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()
        for key, value in options.model_dump(mode="json", exclude_defaults=True).items()
    } | {"type": options.kind}
