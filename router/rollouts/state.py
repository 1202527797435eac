"""How far a rollout has come: the one value that is kept, and what the engine says about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from router.rollouts.plan import Place


class Phase(StrEnum):
    """Where a rollout stands.

    `pending`: the first step's needs are not met, or it waits to be started. `progressing`: at a
    step. `paused`: at a step or before the first, waiting for a person. `baking`: after the last
    step. `promoted`, `rolled_back`: over, all traffic is the new variant's, the old one's.
    `failed`: over without having begun; all traffic is the old variant's.
    """

    PENDING = "pending"
    PROGRESSING = "progressing"
    PAUSED = "paused"
    BAKING = "baking"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"


class Pause(StrEnum):
    """Why a paused rollout waits for a person."""

    PERSON = "person"
    """A person said so."""
    GATE = "gate"
    """The step is over and passed, and has a gate."""
    EVIDENCE = "evidence"
    """The guard could not say, for as long as it may take."""


class Action(StrEnum):
    """What a person may do."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"
    PAUSE = "pause"
    RESUME = "resume"
    WEIGHTS = "weights"
    SWITCH = "switch"


@dataclass(frozen=True, slots=True)
class State:
    """Everything a rollout is at one moment. JSON-able by `dump`.

    `step`: index of the step in force, -1 before the first, the number of steps from the bake on.
    `held_s`: how much of the step's hold (or of the bake, or of the time after promotion in which a
    rollback is taken) has passed; it stands still while paused and while the router is not running.
    `waited_s`: how long it has waited beyond that for evidence; `unready_s`: for what the next step
    needs. `at_s`: when the phase or step began, in seconds since 1970. `is_reversing`: on its way
    back. `manual`: weights that a person set, in place of the step's. `evidence`: what the guard
    knows, by the name of the check; opaque here. `in_step`: requests of the new variant since the
    step began. `cursor`: how far the measurements of a fleet were read. `pause`: why it is paused.
    `is_started`: it need not wait for a person to begin. `is_pushed`: a person said to leave this
    step as soon as the next one's needs hold. `is_switching`: a person said to go to the end as
    soon as all needs hold.
    """

    phase: Phase = Phase.PENDING
    step: int = -1
    held_s: float = 0.0
    waited_s: float = 0.0
    at_s: float = 0.0
    reason: str = ""
    is_reversing: bool = False
    manual: Mapping[str, float] | None = None
    in_step: int = 0
    evidence: Mapping[str, Any] = field(default_factory=dict)
    cursor: str = ""
    unready_s: float = 0.0
    pause: Pause | None = None
    is_started: bool = False
    is_pushed: bool = False
    is_switching: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the audit log. Times are seconds since 1970; `seq` is given by the store.

    `kind` is what happened: an `Action`, or `started`, `step`, `paused`, `baking`, `promoted`,
    `rolled_back`, `failed`, `inconclusive`, `restarted`, `dropped`, `kept` (promoted, and stays so
    with an edited policy), `recovered` (the store had lost it). `by` is who: a person as the
    command line or the API names them, or `pointsman` for a step of its own. `before` and `after`
    are phase, step and weights.
    """

    route: str
    kind: str
    by: str
    at_s: float
    reason: str
    generation: int
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    seq: int = 0


class Outcome(StrEnum):
    """What a guard says."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check, a gate or a whole guard says, and the sentence that explains it to people."""

    outcome: Outcome
    reason: str
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the engine is told at each turn.

    `now_s`: seconds since 1970, for stamps only. `elapsed_s`: since the last turn, by a clock that
    never jumps. `up`: endpoints that may get requests, as far as they are known. `in_flight`:
    requests on endpoints that are idle; one that is missing is not known. `verdict`, `pre_verdict`:
    of the guards, None without one. `requests`: the new variant's since the last turn.
    """

    now_s: float
    elapsed_s: float
    up: frozenset[Place]
    in_flight: Mapping[Place, int]
    verdict: Verdict | None = None
    pre_verdict: Verdict | None = None
    requests: int = 0
