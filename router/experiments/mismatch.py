"""Do variants get the shares they should? A sample-ratio mismatch makes every comparison void.

Lindon & Malek, "Anytime-valid inference for multinomial count data" (arXiv:2011.03567): counts
against their shares p, Dirichlet(100 p) as the alternative. The Bayes factor

    B(a + counts) / (B(a) prod p^counts),  B the multivariate beta function, a = 100 p

is an e-value at every moment, so looking often raises no false alarm: the chance that it ever
reaches 100 without a mismatch is 1 % (Ville 1939).

Where weights change, each version of them is a block. Its alternative is Dirichlet with the mean
p_k f_k / sum p f and the weight of all that came before, 100 + N, where f_k = (100 q_k + O_k) /
(100 q_k + E_k): how much too often variant k was seen in the blocks before (O observed, E expected,
q the first shares). It depends on earlier blocks only, so the product over blocks is an e-value
still; while the shares stay as they are it is the formula above, whose posterior this is. So a
router whose weights move all the time accumulates evidence as fast as one whose weights stand.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

FLAG_AT: Final = 100.0
"""The e-value at which the alarm is raised: wrongly in at most 1 % of experiments."""
PRIOR_UNITS: Final = 100.0
"""Worth of the alternative: it finds shares that are off by a tenth within thousands of units."""
_LOG_MOST: Final = 700.0
"""Beyond it exp() overflows, and everything has been said."""


@dataclass(frozen=True, slots=True)
class Split:
    """How many each variant got under `shares`, in one version of the weights."""

    counts: Mapping[str, int]
    shares: Mapping[str, float]

    def live(self) -> "Split":
        """Without variants of share 0: they get nobody new, and who still belongs to them was
        assigned earlier. Shares sum to 1."""
        shares = {name: share for name, share in self.shares.items() if share > 0.0}
        total = sum(shares.values())
        counts = {name: self.counts.get(name, 0) for name in shares}
        return Split(counts, {name: share / total for name, share in shares.items()})


def e_value(splits: Iterable[Split]) -> float:
    """The e-value that the splits, in order of time, do not have their shares.

    Only live variants count, see `Split.live`. Evidence beyond e^700 is cut. Cost: O(splits).
    """
    observed: dict[str, float] = {}
    expected: dict[str, float] = {}
    first: dict[str, float] = {}
    before = 0.0
    log_e = 0.0
    for split in splits:
        live = split.live()
        counts, shares = live.counts, live.shares
        n = sum(counts.values())
        for name, share in shares.items():
            first.setdefault(name, share)
        tilted = {
            name: share
            * (PRIOR_UNITS * first[name] + observed.get(name, 0.0))
            / (PRIOR_UNITS * first[name] + expected.get(name, 0.0))
            for name, share in shares.items()
        }
        weight = (PRIOR_UNITS + before) / sum(tilted.values())
        alternative = {name: weight * value for name, value in tilted.items()}
        log_e += _log_bayes_factor(counts, shares, alternative)
        for name, count in counts.items():
            observed[name] = observed.get(name, 0.0) + count
            expected[name] = expected.get(name, 0.0) + n * shares[name]
        before += n
    return math.exp(min(log_e, _LOG_MOST))


def combined(e_values: Iterable[float]) -> float:
    """One e-value for several cells: their mean, which is one whatever they have in common.

    A mismatch in one of K cells is found K times as late in the e-value, not hidden by the others.
    """
    values = list(e_values)
    return sum(values) / len(values) if values else 1.0


def _log_bayes_factor(
    counts: Mapping[str, int], shares: Mapping[str, float], alternative: Mapping[str, float]
) -> float:
    lgamma = math.lgamma
    whole, n = sum(alternative.values()), sum(counts.values())
    parts = sum(
        lgamma(alternative[name] + count)
        - lgamma(alternative[name])
        - (count * math.log(shares[name]))
        for name, count in counts.items()
    )
    return parts + lgamma(whole) - lgamma(whole + n)
