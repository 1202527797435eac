"""External gates of guards: others who are asked whether a rollout may go on.

Owns when each gate is asked and what it said last; `gate_asking.py` knows how. Strategy:

1. `rollouts` names what is under way: four times a second it is looked at again. A gate is asked
   while its rollout is listed, each `interval`, by the router that leads it; so nothing has to be
   adopted or unwatched, and a rollout that begins anew is not judged by what was said of another.
2. At most `ASKED_MAX` questions are open at once; further ones wait their turn.
3. A gate that was not asked yet, or could not answer, is `inconclusive`, unless its `on_error`
   says what an error counts as: an error of the one who is asked is not a failure of the canary.

Who runs rollouts: build with `Gates(lambda: contexts(rollouts.all()), ask, clock)`, run `run()`,
and give `verdicts(route)` to `Judge.observe`. Nothing here raises.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from router import logs
from router.control.post import Unanswered
from router.control.rollout import Rollout
from router.rollouts.options import Gate
from router.rollouts.state import Outcome, Verdict

LOOK_S: Final = 0.25
"""How often is looked what is to be asked: as often as rollouts turn."""
ASKED_MAX: Final = 16
"""Questions that are open at once: they share one process with all else that control does."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Context:
    """A rollout that is under way, as gates are told of it, and its gates.

    `rollout` tells one rollout of a route from the next. `guard` is `pre_guard` or `guard`.
    """

    route: str
    rollout: str
    guard: str
    gates: tuple[Gate, ...]
    standing: Mapping[str, Any] = field(hash=False)
    """Old and new variant, phase, step and weights: JSON-able."""


Ask = Callable[[Gate, Context], Awaitable[Verdict]]
"""Ask a gate. Raises `Unanswered` when that fails."""


def contexts(rollouts: Iterable[Rollout]) -> Iterator[Context]:
    """The rollouts that are under way, led by this router, and have gates at this moment."""
    for one in rollouts:
        plan = one.ground.plan
        is_before = one.state.step < 0
        guard = plan.pre_guard if is_before else plan.guard
        if one.fence is None or not one.is_judged or one.state.is_reversing or guard is None:
            continue
        standing = {
            "old": plan.old,
            "new": plan.new,
            "phase": one.state.phase.value,
            "step": one.state.step,
            "weights": dict(one.stage.weights),
        }
        name = "pre_guard" if is_before else "guard"
        yield Context(one.route, one.ground.digest, name, guard.gates, standing)


@dataclass(slots=True)
class _Asked:
    """What is known of one gate."""

    due_s: float
    verdict: Verdict
    task: asyncio.Task[None] | None = None


_Key = tuple[str, str, str, Gate]


class Gates:
    """The gates of all rollouts that are under way."""

    def __init__(
        self, rollouts: Callable[[], Iterable[Context]], ask: Ask, clock: Callable[[], float]
    ) -> None:
        """`clock` is in seconds and never jumps."""
        self._rollouts = rollouts
        self._ask = ask
        self._clock = clock
        self._asked: dict[_Key, _Asked] = {}
        self._turns = asyncio.Semaphore(ASKED_MAX)

    def verdicts(self, route: str) -> Mapping[str, Verdict]:
        """Gate -> what it said last."""
        return {
            gate.name: asked.verdict
            for (of, _, _, gate), asked in self._asked.items()
            if of == route
        }

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    async def close(self) -> None:
        """Ask nobody any more."""
        tasks = [asked.task for asked in self._asked.values() if asked.task is not None]
        self._asked.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def look(self) -> None:
        """Begin to ask what is due, and forget gates of what is not under way any more."""
        now_s = self._clock()
        listed: set[_Key] = set()
        for context in self._rollouts():
            for gate in context.gates:
                key = (context.route, context.rollout, context.guard, gate)
                listed.add(key)
                asked = self._asked.setdefault(key, _Asked(now_s, _UNASKED))
                if asked.task is None and now_s >= asked.due_s:
                    asked.due_s = now_s + gate.interval
                    asked.task = asyncio.create_task(
                        self._question(gate, context, asked), name=f"gate-{gate.name}"
                    )
        for key in self._asked.keys() - listed:
            task = self._asked.pop(key).task
            if task is not None:
                task.cancel()

    async def _question(self, gate: Gate, context: Context, asked: _Asked) -> None:
        try:
            async with self._turns:
                try:
                    verdict = await self._ask(gate, context)
                except Unanswered as error:
                    verdict = _in_error(gate, str(error))
                except Exception:  # a bug in one answer must not end the asking
                    log.exception("gate_broken")
                    verdict = _in_error(gate, "internal error, see the log")
            self._note(gate, context, asked, verdict)
        finally:
            asked.task = None

    def _note(self, gate: Gate, context: Context, asked: _Asked, verdict: Verdict) -> None:
        if verdict.outcome is not asked.verdict.outcome:
            logs.event(
                log,
                "gate",
                route=context.route,
                gate=gate.name,
                outcome=verdict.outcome.value,
                reason=verdict.reason,
            )
        asked.verdict = verdict


_UNASKED: Final = Verdict(Outcome.INCONCLUSIVE, "has not answered yet")


_ON_ERROR: Final[Mapping[str, Outcome]] = {
    "hold": Outcome.INCONCLUSIVE,
    "fail": Outcome.FAIL,
    "pass": Outcome.PASS,
}


def _in_error(gate: Gate, said: str) -> Verdict:
    rule = f"on_error is {gate.on_error}"
    return Verdict(_ON_ERROR[gate.on_error], f"cannot be asked: {said} ({rule})")
