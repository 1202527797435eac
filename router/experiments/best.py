"""The probability that a variant is the best, by a normal approximation.

Each mean is taken as normal with its standard error (no prior: with hundreds of units it would not
matter). P_k = E prod_{j != k} F_j(X_k) for X_k ~ N(m_k, s_k), worked out at the middle quantiles of
X_k: deterministic. It says which is probably best, not that a difference is shown: only the
p-value may be looked at any time.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

_POINTS: Final = 256
"""Off by less than .002 for means that are far apart or close."""
_QUANTILES: Final = tuple(NormalDist().inv_cdf((i + 0.5) / _POINTS) for i in range(_POINTS))


def probability_best(means: Sequence[tuple[float, float]], sign: float) -> list[float] | None:
    """One probability each, summing to 1, for `(value, variance)`; `sign` -1 where less is better.

    None where a variance is not positive and finite. Cost: O(variants^2).
    """
    if not means or not all(0.0 < variance < math.inf for _, variance in means):
        return None
    curves = [NormalDist(sign * value, math.sqrt(variance)) for value, variance in means]
    found = [_best(k, curves) for k in range(len(curves))]
    total = sum(found)
    return [p / total for p in found]


def _best(k: int, curves: Sequence[NormalDist]) -> float:
    mine = curves[k]
    others = [curve for j, curve in enumerate(curves) if j != k]
    points = (mine.mean + mine.stdev * z for z in _QUANTILES)
    return sum(math.prod(curve.cdf(x) for curve in others) for x in points) / _POINTS
