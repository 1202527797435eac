"""What a picker is: the part of a backend that says which endpoint gets the next request.

A picker is pure: no clock, no I/O; what it draws comes from the generator that is passed in. It
computes what it can in `adopt`, so that `pick` does next to nothing.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar


class Target(Protocol):
    """An endpoint, as a picker sees it. `data.endpoint.EndpointPool` is one."""

    url: str
    weight: float
    """Share relative to the others', above 0; lower than configured during a slow start."""
    in_flight: int
    """Requests of this worker that it works on."""
    latency_s: float
    """Kept by the picker, if it wants to, in a scale of its own; 0: not known."""


T = TypeVar("T", bound=Target)


class Picker(Protocol[T]):
    """One per backend and worker."""

    needs_latency: bool
    """Whether `observe` is to be called."""

    def adopt(self, targets: tuple[T, ...]) -> None:
        """These are the endpoints in use from now on: the set or some weight changed."""

    def pick(self, random: Callable[[], float], key: bytes) -> T:
        """The endpoint for a request. Never called while there are no targets.

        `random` draws from [0, 1). `key` is what a consistent choice hangs on, empty for none.
        """

    def observe(self, target: T, elapsed_s: float, now_s: float) -> None:
        """`target` took `elapsed_s` from the request's last byte to the response's head."""
