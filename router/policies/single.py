"""`single`: one backend answers everything. The policy of a route with a bare `backend:`."""

from collections.abc import Mapping
from typing import Literal

from router.messages import Decision, Request
from router.policies.base import Assignment, Options, Scope, Variant, register


@register
class SingleOptions(Options):
    """One backend answers everything."""

    type: Literal["single"] = "single"
    backend: str
    """The backend that answers."""

    def variants(self) -> tuple[Variant, ...]:
        return (Variant(self.backend, 1.0),)

    def build(self, scope: Scope) -> Assignment:
        return _Single(self.backend)


class _Single:
    """Always the same Decision object."""

    def __init__(self, backend: str) -> None:
        self._decision = Decision(backend, 1.0, "single")
        self.weights: Mapping[str, float] = {backend: 1.0}

    def assign(self, request: Request, u: float) -> Decision:
        return self._decision
