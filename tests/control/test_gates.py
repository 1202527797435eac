"""When gates are asked, and what stands while they have not answered."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from router.control.gates import ASKED_MAX, Context, Gates, contexts
from router.control.ground import Ground
from router.control.post import Unanswered
from router.control.rollout import Rollout
from router.policies.single import SingleOptions
from router.rollouts.options import Gate, Guard
from router.rollouts.state import Outcome, Phase, State, Verdict
from tests.control.support import eventually
from tests.rollouts.plans import canary

PASS = Verdict(Outcome.PASS, "fine")
FAIL = Verdict(Outcome.FAIL, "bad")


def gate(name: str = "slo", **options: Any) -> Gate:
    asked = {"url": "http://127.0.0.1:1/"}
    return Gate.model_validate({"name": name, "webhook": asked, "interval": "10s", **options})


def context(*gates: Gate, rollout: str = "first", guard: str = "guard") -> Context:
    return Context("animals", rollout, guard, gates, {"step": 0})


@dataclass
class Stand:
    """Gates with a clock, a list of what is under way, and whoever answers."""

    listed: list[Context] = field(default_factory=list)
    now_s: float = 0.0
    asked: list[str] = field(default_factory=list)
    answer: Callable[[], Verdict] = lambda: PASS
    is_open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.is_open.set()
        self.gates = Gates(lambda: self.listed, self._ask, lambda: self.now_s)

    async def _ask(self, one: Gate, context: Context) -> Verdict:
        self.asked.append(one.name)
        await self.is_open.wait()
        return self.answer()

    async def look(self) -> None:
        self.gates.look()
        for _ in range(5):  # every question that is not held up is answered by then
            await asyncio.sleep(0)

    def said(self, name: str = "slo") -> Verdict:
        return self.gates.verdicts("animals")[name]


async def test_a_gate_is_asked_at_once_and_then_once_per_interval() -> None:
    stand = Stand([context(gate())])
    stand.is_open.clear()
    await stand.look()
    unasked = Verdict(Outcome.INCONCLUSIVE, "has not answered yet")
    assert stand.said() == unasked
    stand.is_open.set()
    await stand.look()
    assert stand.said() == PASS
    for stand.now_s in (1.0, 9.75, 10.0, 10.25, 19.75):
        await stand.look()
    assert stand.asked == ["slo", "slo"]
    stand.answer = lambda: FAIL
    stand.now_s = 20.0
    await stand.look()
    assert stand.said() == FAIL


async def test_a_gate_that_is_still_being_asked_is_not_asked_again() -> None:
    stand = Stand([context(gate())])
    stand.is_open.clear()
    for stand.now_s in (0.0, 10.0, 20.0):
        await stand.look()
    assert stand.asked == ["slo"]
    await stand.gates.close()


async def test_nobody_is_asked_while_no_rollout_is_under_way() -> None:
    stand = Stand([])
    await stand.look()
    assert (stand.asked, stand.gates.verdicts("animals")) == ([], {})


async def test_what_was_said_of_one_rollout_is_not_said_of_the_next() -> None:
    stand = Stand([context(gate())], answer=lambda: FAIL)
    await stand.look()
    assert stand.said() == FAIL
    stand.is_open.clear()
    stand.listed = [context(gate(), rollout="second")]
    await stand.look()
    assert stand.said().outcome is Outcome.INCONCLUSIVE
    assert stand.asked == ["slo", "slo"]
    await stand.gates.close()


async def test_a_late_answer_about_what_is_over_is_not_heard() -> None:
    stand = Stand([context(gate())], answer=lambda: FAIL)
    stand.is_open.clear()
    await stand.look()
    stand.listed = [context(gate(), guard="pre_guard")]
    await stand.look()
    stand.listed = []
    stand.is_open.set()
    await stand.look()
    assert stand.gates.verdicts("animals") == {}


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [("hold", Outcome.INCONCLUSIVE), ("fail", Outcome.FAIL), ("pass", Outcome.PASS)],
)
async def test_an_error_counts_as_the_gate_says(rule: str, outcome: Outcome) -> None:
    def refuse() -> Verdict:
        raise Unanswered("status 503")

    stand = Stand([context(gate(on_error=rule))], answer=refuse)
    await stand.look()
    reason = f"cannot be asked: status 503 (on_error is {rule})"
    assert stand.said() == Verdict(outcome, reason)


async def test_a_bug_in_an_answer_is_an_error_of_that_gate_alone() -> None:
    def broken() -> Verdict:
        raise KeyError("odd")

    stand = Stand([context(gate())], answer=broken)
    await stand.look()
    assert stand.said().outcome is Outcome.INCONCLUSIVE
    stand.answer = lambda: PASS
    stand.now_s = 10.0
    await stand.look()
    assert stand.said() == PASS


async def test_not_too_many_are_asked_at_once_and_all_in_the_end() -> None:
    stand = Stand([context(*(gate(f"g{i}") for i in range(ASKED_MAX + 9)))])
    stand.is_open.clear()
    await stand.look()
    assert len(stand.asked) == ASKED_MAX
    stand.is_open.set()
    await eventually(lambda: len(stand.asked) == ASKED_MAX + 9)
    await eventually(lambda: all(said == PASS for said in stand.gates.verdicts("animals").values()))


async def test_running_it_looks_again_and_again_and_closing_ends_it() -> None:
    stand = Stand()
    running = asyncio.create_task(stand.gates.run())
    stand.listed = [context(gate())]
    await eventually(lambda: stand.gates.verdicts("animals") == {"slo": PASS})
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await stand.gates.close()
    assert stand.gates.verdicts("animals") == {}


# Which rollouts are asked about


def rollout(state: State, **plan: Any) -> Rollout:
    one = Rollout(Ground("animals", SingleOptions(backend="v1"), canary(**plan), "digest", {}))
    one.state = state
    one.fence = 1
    return one


def guarded(name: str) -> Guard:
    return Guard(gates=(gate(name),))


def test_the_guard_that_judges_at_the_moment_is_the_one_whose_gates_are_asked() -> None:
    plan = {"guard": guarded("after"), "pre_guard": guarded("before")}
    [before] = contexts([rollout(State(Phase.PENDING), **plan)])
    assert (before.guard, [one.name for one in before.gates]) == ("pre_guard", ["before"])
    [after] = contexts([rollout(State(Phase.PROGRESSING, step=1), **plan)])
    assert (after.guard, [one.name for one in after.gates]) == ("guard", ["after"])
    assert (after.route, after.rollout) == ("animals", "digest")
    assert after.standing == {
        "old": "old",
        "new": "new",
        "phase": "progressing",
        "step": 1,
        "weights": {"old": 0.75, "new": 0.25},
    }


@pytest.mark.parametrize("phase", [Phase.PROMOTED, Phase.ROLLED_BACK, Phase.FAILED])
def test_gates_of_a_rollout_that_is_over_are_not_asked(phase: Phase) -> None:
    step = 3 if phase is Phase.PROMOTED else -1
    one = rollout(State(phase, step=step), guard=guarded("slo"), pre_guard=guarded("slo"))
    assert list(contexts([one])) == []


def test_gates_are_asked_by_the_router_that_leads_and_not_on_the_way_back() -> None:
    state = State(Phase.PROGRESSING, step=1)
    assert len(list(contexts([rollout(state, guard=guarded("slo"))]))) == 1
    other = rollout(state, guard=guarded("slo"))
    other.fence = None
    back = rollout(replace(state, is_reversing=True), guard=guarded("slo"))
    assert list(contexts([other, back, rollout(state)])) == []
