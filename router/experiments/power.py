"""How much is still needed, and what could have been found by now.

The test of `sequential.py` has shown an effect d once |estimate| exceeds its half-width. With the
chance `power` that is so when d >= half-width + z sd, where sd is the estimate's standard deviation
and z the normal quantile of `power`. Looking more than once finds more, so these figures err on the
careful side.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

from router.experiments.sequential import half_width

POWER: Final = 0.8
"""The chance to find the effect that "needed" means."""
UNITS_MOST: Final = 10**12
"""More than anybody will ever see: "never"."""
_HALVINGS: Final = 32


@dataclass(frozen=True, slots=True)
class Design:
    """Two variants of which one is to be told from the other.

    `control` and `variant` are the variances of one value of theirs, `share` is the variant's part
    of what both get, `scale` is that of `sequential.log_ratio`.
    """

    control: float
    variant: float
    share: float
    scale: float
    alpha: float

    def variance(self, units: float) -> float:
        """Of the estimated difference when both have had so many units together."""
        return (self.control / (1.0 - self.share) + self.variant / self.share) / units


def detectable(variance: float, scale: float, alpha: float, power: float = POWER) -> float:
    """The smallest difference found with the chance `power`, given the estimate's variance."""
    z = NormalDist().inv_cdf(power)
    return half_width(variance, scale, alpha) + z * math.sqrt(variance)


def units_needed(design: Design, effect: float, power: float = POWER) -> int | None:
    """Units of both together to find a difference of `effect` with the chance `power`.

    None: more than `UNITS_MOST`. Cost: `_HALVINGS` evaluations.
    """

    def found(units: float) -> bool:
        least = detectable(design.variance(units), design.scale, design.alpha, power)
        return least <= abs(effect)

    if effect == 0.0 or not found(UNITS_MOST):
        return None
    low, high = 0.0, math.log(UNITS_MOST)  # in logarithms, so that each halving counts alike
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if found(math.exp(middle)) else (middle, high)
    return math.ceil(math.exp(high) * (1.0 - 1e-9))
