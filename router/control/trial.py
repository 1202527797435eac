"""The rollouts of a config that is not in force yet, and what any rollouts give their routes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from router.control.ground import Ground
from router.control.rollout import Rollout


@dataclass(frozen=True, slots=True)
class Trial:
    """The rollouts of a config that is not in force yet. One whose policy is the same is the very
    one that runs."""

    rollouts: Mapping[str, Rollout]
    grounds: Mapping[str, Ground]

    def weights(self) -> dict[str, dict[str, float]]:
        """Route -> variant -> weight."""
        return weights_of(self.rollouts.values())

    def held(self) -> list[str]:
        """Routes whose arriving requests wait."""
        return held_of(self.rollouts.values())


def weights_of(rollouts: Iterable[Rollout]) -> dict[str, dict[str, float]]:
    """Route -> variant -> weight."""
    return {rollout.route: dict(rollout.stage.weights) for rollout in rollouts}


def held_of(rollouts: Iterable[Rollout]) -> list[str]:
    """Routes whose arriving requests wait."""
    return [rollout.route for rollout in rollouts if rollout.stage.is_held]
