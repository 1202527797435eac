"""What a person tells a rollout, done: looked up first, written, then in force.

Owns what becomes of it when the store fails or another router comes first; what an action means
stands in `rollouts/actions.py`. Whoever calls holds the rollout's lane.
"""

from collections.abc import Mapping
from typing import Final

from router.control.ledger import Ledger
from router.control.rollout import Rollout, is_way_back
from router.control.ties import Ties
from router.errors import StateError
from router.rollouts import engine
from router.rollouts.state import Action

_TRIES: Final = 3
"""How often an action is tried when another router moves the rollout at the same moment."""


async def act(
    ledger: Ledger,
    ties: Ties,
    rollout: Rollout,
    action: Action,
    *,
    by: str,
    reason: str,
    weights: Mapping[str, float] | None,
) -> str:
    """Do what a person asks; what is so already, as a sentence, or nothing when it is done.

    Raises:
        engine.Refused: it makes no sense now.
        StateError: it could not be written; nothing was changed.
    """
    for _ in range(_TRIES):
        failure = await _look(ledger, rollout, action)
        plan, now_s = rollout.ground.plan, ties.now()
        turn = engine.act(
            plan, rollout.state, action, by=by, reason=reason, now_s=now_s, weights=weights
        )
        if turn.note or await _do(ledger, rollout, turn, failure):
            return turn.note
    raise StateError("another router moves this rollout at the same time; try again")


async def _look(ledger: Ledger, rollout: Rollout, action: Action) -> StateError | None:
    """What a person decides must not rest on what another router knows better. Back is always
    safe: then what went wrong is returned."""
    failure = None
    try:
        await ledger.look(rollout)
    except StateError as error:
        if action is not Action.ROLLBACK:
            raise
        failure = error
    if not rollout.is_kept:
        raise engine.Refused(rollout.trouble or "the rollout has not begun yet; try again")
    return failure


async def _do(
    ledger: Ledger, rollout: Rollout, turn: engine.Turn, failure: StateError | None
) -> bool:
    """Whether it was done; False: somebody else moved the rollout. A store that could not be read
    a moment ago is not waited for again: the turns that follow write it."""
    if failure is None:
        try:
            return await ledger.write(rollout, turn.state, turn.events)
        except StateError as error:
            if not is_way_back(turn.state):
                raise
            failure = error
    rollout.is_cut_off = True
    ledger.note_trouble(rollout, unwritten=str(failure))
    ledger.act_unwritten(rollout, turn)
    return True
