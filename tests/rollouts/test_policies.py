"""The plans of the policies, as the engine runs them: the examples, from start to both ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from router.config import load_file
from router.rollouts import engine
from router.rollouts.plan import Place, Plan, Stage
from router.rollouts.state import Action, Inputs, Outcome, Phase, State, Verdict

EXAMPLES = Path(__file__).parents[2] / "config/examples"
KINDS = ("canary", "blue_green", "rolling", "recreate")
TURNS_MAX = 500
PASS = Verdict(Outcome.PASS, "as good")
OVER = (Phase.PROMOTED, Phase.ROLLED_BACK, Phase.FAILED)


def planned(kind: str) -> tuple[Plan, frozenset[Place]]:
    """The plan of an example, and all its endpoints."""
    config = load_file(EXAMPLES / f"{kind}.yaml", {}).config
    plan = config.routes[0].options.rollout(config.pools)
    assert plan is not None
    return plan, frozenset((name, url) for name, pool in config.pools.items() for url in pool)


def turns(plan: Plan, state: State, up: frozenset[Place]) -> Iterator[State]:
    """States from turn to turn, 10 minutes each, until nothing changes or it is over."""
    for turn in range(TURNS_MAX):
        idle = engine.stage(plan, state).idle
        inputs = Inputs(
            now_s=turn, elapsed_s=600.0, up=up, in_flight=dict.fromkeys(idle, 0),
            verdict=PASS, pre_verdict=PASS, requests=1000,
        )  # fmt: skip
        state = engine.advance(plan, state, inputs).state
        if state.phase is Phase.PAUSED:
            state = act(plan, state, Action.PROMOTE)
        yield state
        if state.phase in OVER and not state.is_reversing:
            return


def act(plan: Plan, state: State, action: Action) -> State:
    return engine.act(plan, state, action, by="me", reason="", now_s=0.0).state


def started(plan: Plan) -> State:
    state = engine.begin(plan, 0.0).state
    return state if plan.starts_by_itself else act(plan, state, Action.PROMOTE)


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_goes_from_all_old_to_all_new_and_never_back(kind: str) -> None:
    plan, places = planned(kind)
    states = [started(plan), *turns(plan, started(plan), places)]
    stages = [engine.stage(plan, state) for state in states]
    shares = [stage.weights[plan.new] for stage in stages]

    assert states[-1].phase is Phase.PROMOTED
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert shares == sorted(shares)
    assert all(sum(stage.weights.values()) == pytest.approx(1.0) for stage in stages)
    assert stages[-1] == plan.final.stage
    if kind == "canary":
        before = [share for share, s in zip(shares, states, strict=True) if s.phase not in OVER]
        assert max(before) == 0.5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("after", range(4))
def test_an_example_can_be_rolled_back_wherever_it_is(kind: str, after: int) -> None:
    plan, places = planned(kind)
    state = started(plan)
    for count, later in enumerate(turns(plan, state, places)):
        if count == after or later.phase in OVER:
            break
        state = later
    *_, last = turns(plan, act(plan, state, Action.ROLLBACK), places)

    assert last.phase in (Phase.ROLLED_BACK, Phase.FAILED)
    assert engine.stage(plan, last) == plan.rest


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_does_not_move_before_the_new_version_is_up(kind: str) -> None:
    plan, places = planned(kind)
    old = frozenset(place for place in places if place[0] == plan.old)
    states = list(turns(plan, started(plan), old))

    assert all(engine.stage(plan, state).weights[plan.new] == 0.0 for state in states)
    assert states[-1].phase in (Phase.FAILED, Phase.ROLLED_BACK)


def test_recreate_holds_until_the_old_version_is_done_and_the_new_one_up() -> None:
    plan, places = planned("recreate")
    old = frozenset(place for place in places if place[0] == plan.old)

    def stage(state: State, up: frozenset[Place], in_flight: int) -> tuple[State, Stage]:
        for _ in range(3):
            inputs = Inputs(0.0, 1.0, up, dict.fromkeys(old, in_flight))
            state = engine.advance(plan, state, inputs).state
        return state, engine.stage(plan, state)

    busy, at_busy = stage(started(plan), places, 1)
    drained, at_drained = stage(busy, old, 0)
    _, at_end = stage(drained, places, 0)

    assert (at_busy.is_held, at_busy.idle, busy.step) == (True, old, 0)
    assert (at_drained.is_held, drained.step) == (True, 1)
    assert (at_end.is_held, at_end.weights[plan.new]) == (False, 1.0)
