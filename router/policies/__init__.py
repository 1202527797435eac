"""Policies: how a request picks a variant. Importing this package fills the table of kinds."""

from router.policies import ab, bandit, blue_green, canary, recreate, rolling, single
from router.policies.base import (
    POLICIES,
    Assignment,
    Learner,
    Options,
    Scope,
    Variant,
    register,
)

__all__ = [
    "POLICIES",
    "Assignment",
    "Learner",
    "Options",
    "Scope",
    "Variant",
    "ab",
    "bandit",
    "blue_green",
    "canary",
    "recreate",
    "register",
    "rolling",
    "single",
]
