"""The ledger of rollouts: what one does is written first, then done, then told.

Owns the order of writing and acting, and what happens when the store fails or somebody else wrote
first; when something is due is decided in `rollouts.py`.
"""

import itertools
import json
import logging
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from router import logs
from router.control.ground import Ground, changed
from router.control.rollout import RECENT_MAX, Rollout
from router.control.store import NO_FENCE, KeptRollout, Store
from router.control.ties import Ties
from router.errors import StateError
from router.messages import Weights
from router.rollouts import engine
from router.rollouts.state import Action, Event, Phase, State

_RECOVERED: Final = "the store had lost this rollout; written again as this router knows it"
_BAD_NEWS: Final = frozenset({"rolled_back", "failed", "inconclusive", "restarted", "rollback"})
_FOREIGN: Final = "the store has a rollout of this route with another policy, from another router"
_WAITS: Final = "{}: this router begins anew when it leads, or when the leader has its config"

log = logging.getLogger(__name__)


class Ledger:
    """Reads, writes and acts for every rollout of this router."""

    def __init__(self, ties: Ties) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        """Events that this router wrote, by route and kind."""
        self.generation = 0
        """Of the config in force, for the lines that are written."""
        self._ties = ties
        self._versions = itertools.count(1)

    @property
    def store(self) -> Store:
        """The store.

        Raises:
            StateError: none is open.
        """
        if self._ties.state.store is None:
            raise StateError("no state store is open")
        return self._ties.state.store

    # reading

    async def look(self, rollout: Rollout) -> None:
        """Take over what the store has, if it is news.

        Raises:
            StateError: it cannot be read, or not understood.
        """
        kept = await self.store.rollout(rollout.route)
        rollout.looked_s = self._ties.clock()
        if _outlives(rollout, kept):
            rollout.revision = 0 if kept is None else kept.revision
            rollout.is_lost = True
        elif rollout.is_news(kept):
            await self._take_over(rollout, kept)
        if not rollout.recent:
            recent = await self.store.events(limit=RECENT_MAX, route=rollout.route)
            rollout.recent = deque(recent, RECENT_MAX)
        self.note_trouble(rollout, unread=_strangeness(rollout, kept))

    async def _take_over(self, rollout: Rollout, kept: KeptRollout | None) -> None:
        """Go on from what the store has. What this router did alone is said, and not in force."""
        written = _lines_of(rollout, kept)
        alone = [event for event in rollout.unwritten if event not in written]
        self._announce(rollout, [event for event in written if event not in rollout.unwritten])
        for event in alone:
            rollout.owed = event if event.kind == Action.ROLLBACK else rollout.owed
        await self._ties.audit.add(alone)
        rollout.unwritten.clear()
        if rollout.state.at_s != restore(rollout, kept).at_s:
            rollout.recent.clear()

    async def repay(self, rollout: Rollout) -> None:
        """Roll all routers back, as a person told this one while it could not tell the others.

        Raises:
            StateError: it is not kept.
        """
        owed, plan = rollout.owed, rollout.ground.plan
        if owed is None or not rollout.is_kept:
            return
        try:
            turn = engine.act(
                plan,
                rollout.state,
                Action.ROLLBACK,
                by=owed.by,
                reason="asked for while the others could not be told",
                now_s=self._ties.now(),
            )
        except engine.Refused:  # promoted since, and the old version is no longer kept ready
            rollout.owed = None
            return
        if turn.note or await self.write(rollout, turn.state, turn.events):
            rollout.owed = None

    # writing

    async def begin(self, rollout: Rollout, earlier: Ground | None) -> None:
        """Write a new rollout, in place of what another policy (`earlier`, if it was of this run
        of the program) left.

        Raises:
            StateError: it is not kept.
        """
        kept = await self.store.rollout(rollout.route)
        what = ""
        if kept is not None and kept.digest:
            options = None if earlier is None else earlier.options
            what = changed(options, kept.state.get("marks", {}), rollout.ground)
            what = what or "the endpoints of its backends changed"
        rollout.revision = 0 if kept is None else kept.revision
        is_promoted = restore(rollout, kept).phase is Phase.PROMOTED
        if rollout.is_kept:  # a router with the same policy came first
            return
        if is_promoted:
            event = self._event(rollout, "kept", f"stays promoted: {what}")
            await self.write(rollout, rollout.state, [event])
            return
        turn = engine.begin(rollout.ground.plan, self._ties.now())
        again = [self._event(rollout, "restarted", f"begins anew: {what}")] if what else []
        await self.write(rollout, turn.state, [*again, *turn.events])

    async def write(self, rollout: Rollout, state: State, events: Iterable[Event]) -> bool:
        """Keep `state`, then put it in force; False: somebody else moved it, which is taken over.

        Raises:
            StateError: it is not kept.
        """
        stamped = [self._stamped(rollout, event) for event in events]
        if rollout.is_lost:
            stamped.insert(0, self._event(rollout, "recovered", _RECOVERED))
        kept = rollout.record(state)
        waiting = len(rollout.unwritten)
        fence = NO_FENCE if rollout.fence is None else rollout.fence
        lines = [*rollout.unwritten, *stamped]
        try:
            written = await self.store.keep_rollout(kept, fence, lines)
        except StateError:
            rollout.tried.append((kept, lines))
            raise
        if written is None:
            await self.look(rollout)
            return False
        rollout.wrote(kept, state, self._ties.clock())
        self._put(rollout, state, written[waiting:])
        self.note_trouble(rollout, unread="", unwritten="")
        return True

    def act_unwritten(self, rollout: Rollout, turn: engine.Turn) -> None:
        """Put a turn in force though the store cannot be told yet."""
        stamped = [self._stamped(rollout, event) for event in turn.events]
        rollout.unwritten.extend(stamped)
        self._put(rollout, turn.state, stamped)

    async def drop(self, rollout: Rollout) -> None:
        """Forget a rollout whose route, or whose steps, are no longer in the config."""
        ties, route = self._ties, rollout.route
        ties.endpoints.set_idle(route, frozenset())
        event = self._event(rollout, "dropped", f"{route} has no rollout in the config any more")
        lines = [*rollout.unwritten, event]
        try:
            fence = await ties.state.fleet.lead(route)
            if fence is None:
                return
            kept = KeptRollout(route, "", rollout.revision + 1, {})
            written = await self.store.keep_rollout(kept, fence, lines)
        except StateError:
            await ties.audit.add(lines)
            written = lines
        self._announce(rollout, [] if written is None else [event])

    # acting

    def _put(self, rollout: Rollout, state: State, events: Iterable[Event]) -> None:
        rollout.move(state)
        self.apply(rollout)
        self._announce(rollout, events)

    def apply(self, rollout: Rollout) -> None:
        """Tell workers of the stage in force. Nobody is sent to an endpoint that is idle: what goes
        in goes in before the weights change, what goes out after."""
        stage, told, route = rollout.stage, rollout.applied, rollout.route
        if stage == told:
            return
        rollout.applied, rollout.applied_at = stage, rollout.revision
        if told is not None:
            self._ties.endpoints.set_idle(route, stage.idle & told.idle)
        version = next(self._versions)
        self._ties.push(Weights(route, version, dict(stage.weights), stage.is_held))
        self._ties.endpoints.set_idle(route, stage.idle)

    # telling

    def note_trouble(
        self, rollout: Rollout, unread: str | None = None, unwritten: str | None = None
    ) -> None:
        """Why it stands still (empty: no more for this reason): one line when that begins, one when
        it ends."""
        before = rollout.trouble
        rollout.unread = rollout.unread if unread is None else unread
        rollout.unwritable = rollout.unwritable if unwritten is None else unwritten
        if bool(before) == bool(rollout.trouble):
            return
        if rollout.trouble:
            reason, route = rollout.trouble, rollout.route
            logs.event(log, "rollout_stalled", severity=logging.ERROR, route=route, reason=reason)
        else:
            logs.event(log, "rollout_goes_on", route=rollout.route)

    def _event(self, rollout: Rollout, kind: str, reason: str) -> Event:
        standing = engine.standing(rollout.ground.plan, rollout.state)
        event = Event("", kind, "pointsman", self._ties.now(), reason, 0, standing)
        return self._stamped(rollout, event)

    def _stamped(self, rollout: Rollout, event: Event) -> Event:
        return replace(event, route=rollout.route, generation=self.generation)

    def _announce(self, rollout: Rollout, events: Iterable[Event]) -> None:
        """Log, count and pass on what happened."""
        for event in events:
            self.counts[event.route, event.kind] += 1
            rollout.recent.append(event)
            logs.event(
                log,
                f"rollout_{event.kind}",
                severity=logging.WARNING if event.kind in _BAD_NEWS else logging.INFO,
                route=event.route,
                by=event.by,
                reason=event.reason,
                **_after(event.after),
                **({"edit": rollout.ground.plan.edit} if event.kind == "promoted" else {}),
            )
            self._ties.notify(event)


def restore(rollout: Rollout, kept: KeptRollout | None) -> State:
    """Go on from what the store has; the state then.

    Raises:
        StateError: it is not one that this program understands.
    """
    if kept is None or kept.digest != rollout.ground.digest:
        rollout.is_kept = False
    try:
        if kept is not None and kept.digest == rollout.ground.digest:
            rollout.restore(kept)
        elif kept is not None:
            rollout.inherit(kept)
    except (ValueError, KeyError) as error:
        raise StateError(str(error)) from error
    return rollout.state


def _outlives(rollout: Rollout, kept: KeptRollout | None) -> bool:
    try:
        return rollout.outlives(kept)
    except (ValueError, KeyError) as error:
        raise StateError(str(error)) from error


def _strangeness(rollout: Rollout, kept: KeptRollout | None) -> str:
    """Why it stands still beside another policy's rollout; empty: it does not."""
    if rollout.is_kept or kept is None or not kept.digest:
        return ""
    return _WAITS.format(_FOREIGN) if rollout.may_begin else _FOREIGN


def _lines_of(rollout: Rollout, kept: KeptRollout | None) -> list[Event]:
    """The lines that this router wrote with what is kept, when it was not told that it did."""
    if kept is None:
        return []
    form = _form(kept)
    return next((lines for tried, lines in rollout.tried if _form(tried) == form), [])


def _form(kept: KeptRollout) -> tuple[str, int, str]:
    """As a store gives it back."""
    return kept.digest, kept.revision, json.dumps(kept.state, sort_keys=True)


def _after(after: Mapping[str, Any]) -> dict[str, Any]:
    return {name: after[name] for name in ("phase", "step", "weights") if name in after}
