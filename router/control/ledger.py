"""The ledger of rollouts: what one does is written first, then done, then told.

Owns the order of writing and acting, and what happens when the store fails or somebody else wrote
first; when something is due is decided in `rollouts.py`.
"""

import itertools
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
from router.rollouts.state import Event, State

_BAD_NEWS: Final = frozenset({"rolled_back", "failed", "inconclusive", "restarted", "rollback"})
_FOREIGN: Final = "the store has a rollout of this route with another policy, from another router"

log = logging.getLogger(__name__)


class Ledger:
    """Reads, writes and acts for every rollout of this router."""

    def __init__(self, ties: Ties) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        """Events that this router wrote, by route and kind."""
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
        if kept is None and rollout.is_kept:  # the store forgot: this router still knows
            rollout.revision = 0
        elif rollout.is_news(kept):
            await self._ties.audit.add(rollout.unwritten)
            rollout.unwritten.clear()
            if rollout.state.at_s != restore(rollout, kept).at_s:
                rollout.recent.clear()
        if not rollout.recent:
            recent = await self.store.events(limit=RECENT_MAX, route=rollout.route)
            rollout.recent = deque(recent, RECENT_MAX)
        is_foreign = not rollout.is_kept and not rollout.may_begin
        self.note_trouble(rollout, unread=_FOREIGN if is_foreign else "")

    # writing

    async def begin(self, rollout: Rollout, earlier: Ground | None) -> None:
        """Write a new rollout, in place of what another policy (`earlier`, if it was of this run
        of the program) left.

        Raises:
            StateError: it is not kept.
        """
        ground = rollout.ground
        kept = await self.store.rollout(rollout.route)
        turn = engine.begin(ground.plan, self._ties.now())
        events = list(turn.events)
        if kept is not None and kept.digest:
            options = None if earlier is None else earlier.options
            what = changed(options, kept.state.get("marks", {}), ground)
            reason = f"begins anew: {what or 'the endpoints of its backends changed'}"
            events.insert(0, self._event(rollout, "restarted", reason))
        rollout.revision = 0 if kept is None else kept.revision
        await self.write(rollout, turn.state, events)

    async def write(self, rollout: Rollout, state: State, events: Iterable[Event]) -> bool:
        """Keep `state`, then put it in force; False: somebody else moved it, which is taken over.

        Raises:
            StateError: it is not kept.
        """
        stamped = [self._stamped(rollout, event) for event in events]
        kept = rollout.record(state)
        waiting = len(rollout.unwritten)
        fence = NO_FENCE if rollout.fence is None else rollout.fence
        written = await self.store.keep_rollout(kept, fence, [*rollout.unwritten, *stamped])
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
        return replace(event, route=rollout.route, generation=self._ties.generation())

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
        return rollout.state
    try:
        rollout.restore(kept)
    except (ValueError, KeyError) as error:
        raise StateError(str(error)) from error
    return rollout.state


def _after(after: Mapping[str, Any]) -> dict[str, Any]:
    return {name: after[name] for name in ("phase", "step", "weights") if name in after}
