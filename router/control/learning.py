"""Learning: rewards move weights. One learner per route whose policy has one.

Owns learners, the order in which rewards are counted, and when weights leave for the workers.

1. Rewards go through one lane: a batch is written to the store, then counted in the order of its
   numbers with nothing awaited in between. So a dump and the number of its last reward agree.
2. Every second, routes that saw a reward get new weights. Dump and number are saved before the
   weights are pushed: nothing is acted on that a crash could forget.
3. A reload builds `Trial` learners first and adopts them in one step. A route that keeps its name
   and policy kind keeps what it learned; another is restored from the store.
4. The store is opened when a route first learns; it is not closed here, others use it too.
"""

import asyncio
import itertools
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from router import logs
from router.config.model import Config
from router.control.state import StateHolder
from router.control.store import Learned, Reward, Store
from router.errors import StartError, StateError
from router.messages import Weights
from router.policies import Learner, Options

TICK_S: Final = 1.0
_PURGE_EVERY_TICKS: Final = 60

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Lesson:
    """One route's learner, with every reward up to number `seq` counted."""

    route: str
    kind: str
    variants: frozenset[str]
    learner: Learner
    seq: int
    weights: dict[str, float]
    is_new: bool = True
    """Something was counted, or the variants changed, since weights were last worked out."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Learners for a config that is not in force yet."""

    lessons: dict[str, _Lesson]
    receipt_key: str

    def weights(self) -> dict[str, dict[str, float]]:
        """Route -> variant -> weight."""
        return {lesson.route: dict(lesson.weights) for lesson in self.lessons.values()}


class Learning:
    """The learners in force."""

    def __init__(
        self, push: Callable[[Weights], None], now: Callable[[], float], state: StateHolder
    ) -> None:
        """`push` tells all workers; `now` is seconds since 1970."""
        self.receipt_key = ""
        """Hex; empty when no route learns."""
        self._push = push
        self._now = now
        self._state = state
        self._lessons: dict[str, _Lesson] = {}
        self._versions = itertools.count(1)
        self._pending: list[tuple[Sequence[Reward], asyncio.Future[list[bool]]]] = []
        self._lane: asyncio.Task[None] | None = None
        self._is_failing = False

    # config

    async def build(self, config: Config) -> Trial:
        """Learners for `config`, with what they know already.

        Raises:
            StartError: the state store cannot be opened or read, or holds what this version of
                the program does not understand.
        """
        lessons: dict[str, _Lesson] = {}
        for route in config.routes:
            learner = route.options.learner()
            if learner is not None:
                lessons[route.name] = await self._begin(config, route.name, route.options, learner)
        return Trial(lessons, await self._receipt_key_of(config) if lessons else "")

    def adopt(self, trial: Trial) -> None:
        """Put `trial` in force, with what was counted since it was built."""
        for route, lesson in trial.lessons.items():
            old = self._lessons.get(route)
            if old is not None and old.kind == lesson.kind:
                lesson.learner.restore(old.learner.dump())
                lesson.seq = old.seq
        self._lessons = trial.lessons
        self.receipt_key = trial.receipt_key

    async def _begin(
        self, config: Config, route: str, options: Options, learner: Learner
    ) -> _Lesson:
        old = self._lessons.get(route)
        seq = 0
        try:
            if old is not None and old.kind == options.kind:
                learner.restore(old.learner.dump())
                seq = old.seq
            else:
                seq = await self._recall(
                    await self._state.open(config.state), route, options.kind, learner
                )
        except (StateError, ValueError) as error:
            raise StartError(
                f"route {route}: what was learned cannot be read from {config.state}: {error}"
            ) from error
        variants = frozenset(variant.name for variant in options.variants())
        return _Lesson(route, options.kind, variants, learner, seq, learner.weights())

    async def _recall(self, store: Store, route: str, kind: str, learner: Learner) -> int:
        """The last dump, and the rewards accepted after it. Returns the number of the last."""
        learned = await store.load(route, kind)
        seq = 0
        if learned is not None:
            learner.restore(learned.dump)
            seq = learned.seq
        for number, reward in await store.rewards_after(route, seq):
            learner.observe(reward.variant, reward.reward)
            seq = number
        return seq

    async def _receipt_key_of(self, config: Config) -> str:
        if config.feedback.key is not None:
            secret = config.feedback.key.encode()
            return blake2b(secret, digest_size=32, person=b"pointsman-rcpt").hexdigest()
        store = await self._state.open(config.state)
        return await store.setdefault("receipt_key", secrets.token_hex(32))

    # rewards

    @property
    def horizon_s(self) -> int:
        """Receipts issued before this can no longer be counted."""
        return self._state.store.horizon_s if self._state.store is not None else 0

    def knows(self, route: str, variant: str) -> bool:
        """Whether the route learns, and the variant takes part in it."""
        lesson = self._lessons.get(route)
        return lesson is not None and variant in lesson.variants

    async def record(self, rewards: Sequence[Reward]) -> list[bool]:
        """Write and count rewards; for each, whether it is counted now (False: it was before).

        Raises:
            StateError: they could not be written; none was counted.
        """
        done: asyncio.Future[list[bool]] = asyncio.get_running_loop().create_future()
        self._pending.append((rewards, done))
        if self._lane is None:
            self._lane = asyncio.create_task(self._run_lane(), name="rewards")
        return await done

    async def _run_lane(self) -> None:
        try:
            while self._pending:
                batch, self._pending = self._pending, []
                try:
                    await self._count(batch)
                except Exception as error:  # whatever failed, nobody may wait for ever
                    for _, done in batch:
                        if not done.done():
                            done.set_exception(error)
        finally:
            self._lane = None

    async def _count(
        self, batch: Sequence[tuple[Sequence[Reward], asyncio.Future[list[bool]]]]
    ) -> None:
        if self._state.store is None:
            raise StateError("no state store is open")
        flat = [reward for rewards, _ in batch for reward in rewards]
        numbers = iter(await self._state.store.claim(flat))
        for rewards, done in batch:
            counted = [self._observe(reward, next(numbers)) for reward in rewards]
            if not done.done():
                done.set_result(counted)

    def _observe(self, reward: Reward, seq: int | None) -> bool:
        if seq is None:
            return False
        lesson = self._lessons.get(reward.route)
        if lesson is not None:  # else it is replayed should the route come back
            lesson.learner.observe(reward.variant, reward.reward)
            lesson.seq = seq
            lesson.is_new = True
        return True

    # weights

    def weights(self) -> dict[str, dict[str, float]]:
        """Route -> variant -> weight, of every route that learns."""
        return {route: dict(lesson.weights) for route, lesson in self._lessons.items()}

    def summary(self, route: str) -> dict[str, dict[str, float]] | None:
        """What a route learned, for people; None when it does not learn."""
        lesson = self._lessons.get(route)
        return None if lesson is None else lesson.learner.summary()

    async def run(self, window_s: Callable[[], float]) -> None:
        """Tick for ever. `window_s`: how long receipts are accepted."""
        for ticks in itertools.count(1):
            await asyncio.sleep(TICK_S)
            await self.tick()
            if ticks % _PURGE_EVERY_TICKS == 0 and self._state.store is not None:
                try:
                    await self._state.store.purge(int(self._now() - window_s()))
                except StateError as error:
                    logs.event(log, "state_not_purged", severity=logging.ERROR, error=str(error))

    async def tick(self) -> None:
        """Work out, save and push the weights of every route that counted something."""
        lessons = [lesson for lesson in self._lessons.values() if lesson.is_new]
        if not lessons or self._state.store is None:
            return
        weights: list[dict[str, float]] = []
        records: list[Learned] = []
        for lesson in lessons:
            weights.append(lesson.learner.weights())
            dump: dict[str, Any] = lesson.learner.dump()
            records.append(Learned(lesson.route, lesson.kind, dump, lesson.seq))
            lesson.is_new = False
        try:
            await self._state.store.save(records)
        except StateError as error:
            for lesson in lessons:
                lesson.is_new = True
            self._report(str(error))
            return
        self._report(None)
        for lesson, new in zip(lessons, weights, strict=True):
            if self._lessons.get(lesson.route) is lesson and new != lesson.weights:
                lesson.weights = new
                self._push(Weights(lesson.route, next(self._versions), new))

    def _report(self, error: str | None) -> None:
        """One line when saving begins to fail, one when it works again."""
        if error is not None and not self._is_failing:
            logs.event(log, "state_not_saved", severity=logging.ERROR, error=error)
        elif error is None and self._is_failing:
            log.info("state_saved_again")
        self._is_failing = error is not None

    async def close(self) -> None:
        """Count what is pending, and save."""
        if self._lane is not None:
            await self._lane
        await self.tick()
