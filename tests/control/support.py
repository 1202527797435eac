"""What the tests of control share: configs, a plane without processes, waiting for a condition."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from random import Random
from typing import Any

import orjson

from router.config import Loaded, load_text
from router.control.audit import Audit
from router.control.certificates import Certificates
from router.control.endpoints import Endpoints
from router.control.learning import Learning
from router.control.plane import Plane, Snapshot
from router.control.post import Answer, Unanswered
from router.control.probe import Target
from router.control.rollouts import Rollouts
from router.control.state import StateHolder
from router.control.supervisor import Supervisor
from router.control.ties import Ties
from router.control.totals import Totals
from router.control.webhooks import Webhooks
from router.control.worker import Launch, Worker, WorkerEvents
from router.messages import Listening, Prepare, Weights

DEADLINE_S = 10.0

BANDIT = {
    "name": "learner",
    "match": {"path": "/learner/"},
    "policy": {
        "type": "bandit",
        "algorithm": "thompson",
        "variants": [{"backend": "v1"}, {"backend": "v2"}],
        "reward": "click",
    },
}
PLAIN = {"name": "plain", "match": {"path": "/plain/"}, "backend": "v1"}


def document(**changes: Any) -> dict[str, Any]:
    """A small config, some top-level keys replaced."""
    return {
        "listen": "127.0.0.1:0",
        "admin": {"listen": "127.0.0.1:0"},
        "workers": 2,
        "state": "memory:",
        "backends": {
            "v1": {"endpoints": ["http://127.0.0.1:1"]},
            "v2": {"endpoints": ["http://127.0.0.1:2"]},
        },
        "routes": [PLAIN],
        **changes,
    }


def loaded(**changes: Any) -> Loaded:
    """The config of `document(**changes)`; JSON is YAML."""
    return load_text(orjson.dumps(document(**changes)), "router.yaml", {})


async def eventually(
    condition: Callable[[], bool | Awaitable[bool]], deadline_s: float = DEADLINE_S
) -> None:
    """Poll until `condition` holds; fails at the deadline."""
    end_s = time.monotonic() + deadline_s
    while True:
        result = condition()
        if await result if isinstance(result, Awaitable) else result:
            return
        assert time.monotonic() < end_s, f"still not: {condition}"
        await asyncio.sleep(0.01)


class Pushed(list[Any]):
    """Collects what is pushed to workers."""

    def __call__(self, message: Any) -> None:
        self.append(message)


async def healthy(target: Target) -> str | None:
    """A probe that always succeeds."""
    return None


async def unknown(name: str) -> Iterable[str]:
    """A look-up that knows no name."""
    raise OSError(f"{name} is not known")


async def no_post(url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Answer:
    """A network that is not there."""
    raise Unanswered("no network")


def nobody(worker: Worker, message: Any) -> None:
    """Takes messages nobody sends."""


class LearningAlone(Learning):
    """Learning whose state store nobody else uses: closed with it."""

    def __init__(self, push: Callable[[Weights], None], now: Callable[[], float]) -> None:
        self.state = StateHolder()
        super().__init__(push, now, self.state)

    async def close(self) -> None:
        await super().close()
        await self.state.close()


async def no_flush() -> None:
    """There are no workers."""


def idle_plane(config: Loaded | None = None, push: Callable[[Weights], None] = print) -> Plane:
    """A plane whose supervisor has no workers."""
    snapshot = Snapshot(config or loaded(), 1, 1.0)
    state = StateHolder()
    endpoints = Endpoints(print, healthy, unknown, Random(1))
    endpoints.states(snapshot.loaded.config)  # what the first workers are told
    endpoints.adopt(snapshot.loaded.config)
    audit = Audit(state, lambda: 1)

    def current() -> Prepare:
        return Prepare(1, snapshot.loaded.document, {}, {}, "")

    return Plane(
        listening=Listening("127.0.0.1:8080", "127.0.0.1:9901"),
        snapshot=snapshot,
        totals=Totals(),
        state=state,
        learning=Learning(push, time.time, state),
        audit=audit,
        rollouts=Rollouts(Ties(state, audit, endpoints, push, no_flush)),
        supervisor=Supervisor(
            Launch((), "json", "info"), (), current, WorkerEvents(nobody, nobody, nobody), print
        ),
        endpoints=endpoints,
        certificates=Certificates(print, snapshot.loaded),
        webhooks=Webhooks(no_post, time.time, Random(1)),
        started_at_s=1.0,
        last_success_at_s=1.0,
    )
