"""What rollouts are tied to: the parts of the program that they ask and tell."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from router.control.audit import Audit
from router.control.endpoints import Endpoints
from router.control.state import StateHolder
from router.messages import Weights
from router.rollouts.state import Event, Verdict


def _nobody(event: Event) -> None:
    """Nobody wants to know."""


def _no_gates(route: str) -> Mapping[str, Verdict]:
    return {}


@dataclass(frozen=True, slots=True)
class Ties:
    """All of them. `push` tells workers; `flush` has them send what they counted, and waits for it;
    `notify` gets every event once, and never waits; `gates` says what the gates of a route say.
    `now` is seconds since 1970, `clock` never jumps.
    """

    state: StateHolder
    audit: Audit
    endpoints: Endpoints
    push: Callable[[Weights], None]
    flush: Callable[[], Awaitable[None]]
    notify: Callable[[Event], None] = _nobody
    gates: Callable[[str], Mapping[str, Verdict]] = _no_gates
    now: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic
