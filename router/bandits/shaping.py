"""From what an algorithm says to what traffic gets: floors, newcomers, steps.

w = f + (1 - K f) P for K arms with the floor f: every arm stays observed. A newcomer among arms
that have settled starts small: knowing nothing of it, most algorithms would give it most traffic
for one whole round.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """`floor`: least share of an arm. `newcomer_share`: most of one with fewer than
    `warm_up_rewards` that joined others. `max_step`: most that a share may grow by in a round."""

    floor: float
    newcomer_share: float = 0.1
    warm_up_rewards: int = 100
    max_step: float | None = None


def floored(shares: Mapping[str, float], floor: float) -> dict[str, float]:
    """Every share at least `floor`, or an equal part where that is less."""
    least = min(floor, 1.0 / len(shares))
    rest = 1.0 - len(shares) * least
    return {name: least + rest * share for name, share in shares.items()}


def held_back(
    shares: Mapping[str, float], newcomers: Collection[str], shape: Shape
) -> dict[str, float]:
    """Newcomers' shares cut to their bound, the others' raised in proportion."""
    limit = max(shape.newcomer_share, shape.floor)
    held = {name: min(share, limit) for name, share in shares.items() if name in newcomers}
    others = {name: share for name, share in shares.items() if name not in held}
    if not held or not others:
        return dict(shares)
    scale = (1.0 - sum(held.values())) / sum(others.values())
    return held | {name: share * scale for name, share in others.items()}


def stepped(
    shares: Mapping[str, float], before: Mapping[str, float], max_step: float
) -> dict[str, float]:
    """Part of the way from `before` to `shares`, so that no share grows by more than `max_step`.

    An arm that is not in `before` is at 0 there. Arms that are gone give their part at once.
    """
    kept = {name: before.get(name, 0.0) for name in shares}
    total = sum(kept.values())
    if total <= 0.0:
        return dict(shares)
    kept = {name: share / total for name, share in kept.items()}
    growth = max(share - kept[name] for name, share in shares.items())
    if growth <= max_step:
        return dict(shares)
    part = max_step / growth
    return {name: kept[name] + part * (share - kept[name]) for name, share in shares.items()}
