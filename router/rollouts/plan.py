"""What a policy wants of a rollout: steps, and how it begins and ends. Policies only generate this.

A rollout moves a route from its `old` variant to its `new` one:

    rest (all old) -> steps -> [bake] -> final (all new)

`Rest`, every step and `final` are `Stage`s: how traffic stands while the rollout is there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from router.rollouts.options import Guard

Place = tuple[str, str]
"""An endpoint: backend and URL."""


@dataclass(frozen=True, slots=True)
class Stage:
    """How traffic stands at some point of a rollout.

    `weights`: variant -> share, summing to 1. `idle`: endpoints that finish what they have and get
    nothing new. `is_held`: arriving requests wait (within the bounds of the policy).
    """

    weights: Mapping[str, float]
    idle: frozenset[Place] = frozenset()
    is_held: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One step: a stage, what must hold before it is entered, and when it is over.

    `needs_up`: endpoints of which all must be healthy before the step is entered. `needs_idle`:
    endpoints on which nothing may be in flight any more before it is entered. A step is over when
    `hold_s` has passed, the guard passes (not asked where the stage is held: nothing runs then),
    and, if `is_gated`, a person said `promote`.
    """

    stage: Stage
    hold_s: float = 0.0
    is_gated: bool = False
    needs_up: frozenset[Place] = frozenset()
    needs_idle: frozenset[Place] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """One rollout. `steps` may be empty: then `final` comes after `rest` (blue/green, at once).

    `needs_one_up`: variants of which at least one endpoint must be healthy before the first step.
    `weight_max`: most that a person may give the new variant before promotion.
    Of `final` only the stage and the needs count; `bake_s` is its hold.
    `bakes_switched`: baking happens with `final` in force (blue/green), else at the last step.
    `reverses`: a rollback walks the steps back one by one (rolling), else it is one jump to `rest`.
    `starts_by_itself`: else it waits for `promote` or `switch` (`resume` only ends a pause).
    `can_switch`: a person may go straight to `final` (a canary is promoted step by step).
    `ready_timeout_s`: how long to wait for what a step needs before the rollout fails (before the
    first step) or goes back (later).
    `keep_s`: how long after promotion a rollback is still taken, the old variant being kept ready.
    `pre_guard` judges the new variant before the first step (by what testers send to it).
    `edit` is the YAML of the policy, as text, that says the same as a promoted rollout.
    """

    old: str
    new: str
    rest: Stage
    steps: tuple[Step, ...]
    final: Step
    needs_one_up: tuple[str, ...] = ()
    bake_s: float = 0.0
    bakes_switched: bool = False
    reverses: bool = False
    starts_by_itself: bool = True
    can_switch: bool = False
    weight_max: float = 0.5
    ready_timeout_s: float = 600.0
    keep_s: float = 0.0
    guard: Guard | None = None
    pre_guard: Guard | None = None
    edit: str = field(default="")
