"""What every state store must do, whatever it is made of: a subclass gives the fixture `store`."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from router.control import store as words
from router.control.store import NO_FENCE, KeptRollout, Learned, Reward, Store
from router.rollouts.state import Event


def reward(nonce: str, issued_s: int = 1000, route: str = "r") -> Reward:
    return Reward(nonce, route, "v1", 1.0, issued_s)


def kept(revision: int, route: str = "r", **state: Any) -> KeptRollout:
    return KeptRollout(route, "digest", revision, {"phase": "progressing", **state})


def event(kind: str, route: str = "r") -> Event:
    before = {"phase": "pending", "step": -1, "weights": {"v1": 1.0, "v2": 0.0}}
    after = {"phase": "progressing", "step": 0, "weights": {"v1": 0.95, "v2": 0.05}}
    return Event(route, kind, "ann@host", 1000.25, "it's “ready”", 7, before, after)


def kinds(events: list[Event] | None) -> list[str]:
    assert events is not None
    return [one.kind for one in events]


class StoreContract:
    """The tests. Each gets a store that is empty."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        raise NotImplementedError
        yield

    # rewards and dumps

    async def test_a_nonce_is_claimed_once_and_numbers_rise(self, store: Store) -> None:
        first = await store.claim([reward("a"), reward("b"), reward("a")])
        second = await store.claim([reward("b"), reward("c")])
        assert first[0] is not None and first[1] is not None and second[1] is not None
        assert (first[2], second[0]) == (None, None)
        assert first[0] < first[1] < second[1]

    async def test_rewards_after_a_number_come_in_order_and_of_one_route(
        self, store: Store
    ) -> None:
        numbers = await store.claim([reward("a"), reward("b", route="other"), reward("c")])
        assert numbers[0] is not None
        assert await store.rewards_after("r", numbers[0]) == [(numbers[2], reward("c"))]
        assert len(await store.rewards_after("r", 0)) == 2

    async def test_the_last_dump_of_a_route_and_kind_is_loaded(self, store: Store) -> None:
        assert await store.load("r", "bandit") is None
        await store.save([Learned("r", "bandit", {"n": 1}, 1), Learned("q", "bandit", {}, 2)])
        await store.save([Learned("r", "bandit", {"n": 2}, 3)])
        assert await store.load("r", "bandit") == Learned("r", "bandit", {"n": 2}, 3)
        assert await store.load("r", "other") is None

    async def test_the_first_text_under_a_name_stays(self, store: Store) -> None:
        assert await store.setdefault("receipt_key", "k1") == "k1"
        assert await store.setdefault("receipt_key", "k2") == "k1"

    async def test_purge_forgets_old_rewards_but_none_that_no_dump_has_yet(
        self, store: Store
    ) -> None:
        rewards = [reward("old", 1000), reward("new", 2000), reward("uncounted", 1000)]
        numbers = await store.claim(rewards)
        assert numbers[1] is not None
        await store.save([Learned("r", "bandit", {}, numbers[1])])
        assert await store.purge(1500) == 1
        assert store.horizon_s == 1001
        assert await store.claim(rewards[1:]) == [None, None]
        assert await store.purge(1500) == 0

    # rollouts

    async def test_a_rollout_is_found_as_it_was_written_last(self, store: Store) -> None:
        assert await store.rollout("r") is None
        assert await store.keep_rollout(kept(1), 1, []) == []
        assert await store.keep_rollout(kept(2, held_s=1.5, deep={"a": [1, None]}), 1, []) == []
        assert await store.keep_rollout(kept(1, route="q"), 1, []) == []
        assert await store.rollout("r") == kept(2, held_s=1.5, deep={"a": [1, None]})
        assert await store.rollout("q") == kept(1, route="q")

    @pytest.mark.parametrize("revision", [1, 2, 4])
    async def test_of_two_that_take_the_same_step_only_one_does(
        self, store: Store, revision: int
    ) -> None:
        for number in (1, 2):
            await store.keep_rollout(kept(number), 1, [event("step")])
        assert await store.keep_rollout(kept(revision, by="late"), 1, [event("late")]) is None
        assert await store.rollout("r") == kept(2)
        assert kinds(await store.events()) == ["step", "step"]

    async def test_the_first_revision_is_one(self, store: Store) -> None:
        assert await store.keep_rollout(kept(2), 1, []) is None
        assert await store.rollout("r") is None

    async def test_whoever_lost_the_lead_writes_no_more(self, store: Store) -> None:
        assert await store.keep_rollout(kept(1), 5, []) == []
        assert await store.keep_rollout(kept(2), 4, [event("late")]) is None
        assert await store.keep_rollout(kept(2), 6, []) == []
        assert await store.events() == []

    async def test_a_person_may_write_through_any_router_and_the_leader_goes_on(
        self, store: Store
    ) -> None:
        assert await store.keep_rollout(kept(1), 5, []) == []
        assert await store.keep_rollout(kept(1), NO_FENCE, []) is None
        assert await store.keep_rollout(kept(2), NO_FENCE, [event("pause")]) is not None
        assert await store.keep_rollout(kept(2), 5, []) is None
        assert await store.keep_rollout(kept(3), 5, []) == []

    # audit lines

    async def test_audit_lines_are_written_with_the_rollout_and_come_back_numbered(
        self, store: Store
    ) -> None:
        written = await store.keep_rollout(kept(1), 1, [event("started"), event("step")])
        assert written is not None
        assert written[0].seq < written[1].seq
        assert [replace(one, seq=0) for one in written] == [event("started"), event("step")]
        assert await store.events() == written

    async def test_audit_lines_are_read_by_route_after_a_number_and_the_last_of_them(
        self, store: Store
    ) -> None:
        written = await store.append_events([event(f"k{n}", "rq"[n % 2]) for n in range(6)])
        numbers = [one.seq for one in written]
        assert numbers == sorted(set(numbers))
        assert kinds(await store.events(limit=2)) == ["k4", "k5"]
        assert kinds(await store.events(after=numbers[1], limit=3)) == ["k2", "k3", "k4"]
        assert kinds(await store.events(after=numbers[1], route="q")) == ["k3", "k5"]
        assert kinds(await store.events(route="r", limit=2)) == ["k2", "k4"]
        assert await store.events(after=numbers[-1]) == []
        assert await store.append_events([]) == []

    async def test_of_too_many_audit_lines_the_oldest_are_forgotten(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(f"{type(store).__module__}.EVENTS_MAX", 3)
        assert words.EVENTS_MAX > 3
        for number in range(5):
            await store.append_events([event(f"k{number}")])
        assert kinds(await store.events()) == ["k2", "k3", "k4"]
        await store.keep_rollout(kept(1), 1, [event("step")])
        assert kinds(await store.events(after=0)) == ["k3", "k4", "step"]
