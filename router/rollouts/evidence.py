"""Sequential tests of rates that may be looked at after every second. Pure arithmetic.

Everything here is an e-process: a number that starts at 1, is multiplied second by second, and
whose expectation never grows while the null hypothesis is true. By Ville's inequality (Ville 1939;
Ramdas, Grünwald, Vovk & Shafer, "Game-theoretic statistics and safe anytime-valid inference",
Statistical Science 38, 2023) the chance that it *ever* reaches 1/alpha is then at most alpha,
however often one looks and whenever one stops.

1. A likelihood ratio of a fixed alternative is an e-process. `_Mixture` averages 24 of them, so
   that the size of the effect need not be known (method of mixtures: Robbins, "Statistical methods
   related to the law of the iterated logarithm", Annals of Mathematical Statistics 41, 1970).
2. It also averages over the second in which the effect begins, so that a variant that fails after
   an hour of health is noticed about as soon as one that fails at once (cf. Shin, Ramdas & Rinaldo,
   "E-detectors", arXiv:2203.03532; here the weights of the beginnings sum to 1, which keeps Ville).
3. Wealth beyond ten times what a conclusion needs is given away, which makes an e-process smaller
   and so keeps it one: evidence that a variant is good must not outlast its goodness for long.
4. Counts are divided by a dispersion >= 1: E[X^(1/d)] <= E[X]^(1/d) <= 1 (Jensen), for any d that
   was known before the second.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Final

ALTERNATIVES: Final = 24
_NEAREST: Final = 1.05
_FURTHEST: Final = 32.0
"""Alternatives lie so many times from the bound, evenly in the logarithm: what is nearer takes
millions of requests to tell apart, what is further is found by the furthest."""
EFFECTS: Final = tuple(
    _NEAREST * (_FURTHEST / _NEAREST) ** (i / (ALTERNATIVES - 1)) for i in range(ALTERNATIVES)
)

_FIRST: Final = 0.8
"""Weight of an effect from the beginning; the rest is spread over later seconds. It delays what is
there from the beginning by ln(1 / 0.8), a twentieth of what a rollback needs."""
_LATER_BLOCKS: Final = 30.0
"""Of the rest, half is for the first 30 seconds, two thirds for the first 60, and so on."""
_SPARE: Final = 10.0

DISPERSION_MAX: Final = 16.0
"""Failures in bursts of about ten have a dispersion of 11."""
_DISPERSION_NOISE: Final = 1.5
"""An estimate below this is what independent failures give too."""
_DISPERSION_KEPT: Final = 0.5 ** (1 / 300)
"""Half of what is known of a variant's rate is of its last five minutes."""
_PRIOR_BLOCKS: Final = 5.0
"""So many seconds of independent failures are assumed before the first."""
_PRIOR_EVENTS: Final = 4.0
_PACE_KEPT: Final = 0.5**0.1
"""The pace is that of the last ten seconds or so."""


@dataclass(slots=True)
class _Mixture:
    """The average of e-processes, one for each alternative and beginning.

    `enough` is the value at which a conclusion is drawn. `wealth[i]` is that of all e-processes of
    alternative i that have begun, `blocks` how many blocks there were.
    """

    enough: float
    wealth: list[float] = field(default_factory=lambda: [_FIRST / ALTERNATIVES] * ALTERNATIVES)
    blocks: int = 0
    value: float = 1.0

    def multiply(self, logs: Sequence[float]) -> None:
        """Count one block, given the logarithm of each alternative's likelihood ratio."""
        begin = (_later(self.blocks) - _later(self.blocks + 1)) / ALTERNATIVES
        self.blocks += 1
        exp = math.exp
        # 700: beyond it exp() overflows, and everything has been said
        wealth = [
            (w + begin) * exp(log if log < 700.0 else 700.0)
            for w, log in zip(self.wealth, logs, strict=True)
        ]
        total, most = sum(wealth), _SPARE * self.enough
        if total > most:
            wealth, total = [w * (most / total) for w in wealth], most
        self.wealth = wealth
        self.value = total + _later(self.blocks)

    def dump(self) -> list[Any]:
        return [self.blocks, self.value, self.wealth]

    def restore(self, dumped: Sequence[Any]) -> None:
        blocks, value, wealth = dumped
        if len(wealth) != ALTERNATIVES:
            raise ValueError(f"expected {ALTERNATIVES} alternatives, found {len(wealth)}")
        self.blocks, self.value = int(blocks), float(value)
        self.wealth = [float(one) for one in wealth]


_NOTHING: Final = (0.0,) * ALTERNATIVES


def _later(blocks: int) -> float:
    """Weight of the beginnings after so many blocks."""
    return (1.0 - _FIRST) / (1.0 + blocks / _LATER_BLOCKS)


class RateRatioE:
    """Evidence that the ratio of two rates is above `ratio` (`is_above`), or below it.

    In a block the old variant answered `na` requests with `a` events, the new one `nb` with `b`.
    If the new rate is theta times the old one, an event is the new variant's with probability
    q(theta) = theta nb / (theta nb + na). The e-process of the alternative theta is

        prod (q(theta) / q(ratio))^b ((1 - q(theta)) / (1 - q(ratio)))^a.

    Its expectation in a block with rates pa and pb, writing B and A for the two quotients, is
    (1 + pa (A - 1))^na (1 + pb (B - 1))^nb <= exp(na pa (A - 1) + nb pb (B - 1)). At pb = ratio pa
    the exponent is pa (na + ratio nb) ((1 - q) (A - 1) + q (B - 1)) with q = q(ratio), which is 0
    since q and 1 - q cancel; for theta > ratio B is > 1, so that a smaller pb makes it negative;
    for theta < ratio the same holds of a larger pb. Weights that change, and rates that change for
    both variants together, therefore do no harm. The idea of comparing by whose an event is: Lindon
    & Malek, "Anytime-valid inference for multinomial count data", arXiv:2011.03567.
    """

    __slots__ = ("_effects", "_mixture", "_ratio")

    def __init__(self, ratio: float, *, is_above: bool, enough: float) -> None:
        self._ratio = ratio
        thetas = [ratio * e if is_above else ratio / e for e in EFFECTS]
        self._effects = [(theta, math.log(theta / ratio)) for theta in thetas]
        self._mixture = _Mixture(enough)

    @property
    def value(self) -> float:
        """The e-value."""
        return self._mixture.value

    def observe(self, na: int, a: float, nb: int, b: float, dispersion: float) -> None:
        """Count a block. `dispersion` may depend on a + b, not on which of them were whose.

        Given a + b, b is binomial with q(theta) where events are rare, and what the divisor does
        to it is known: Jensen's inequality holds block by block.
        """
        if na == 0 or nb == 0 or a + b == 0:
            self._mixture.multiply(_NOTHING)
            return
        odds = nb / na
        base = math.log(self._ratio * odds + 1.0)
        b, events = b / dispersion, (a + b) / dispersion
        log = math.log
        self._mixture.multiply(
            [b * gain - events * (log(theta * odds + 1.0) - base) for theta, gain in self._effects]
        )

    def dump(self) -> list[Any]:
        return self._mixture.dump()

    def restore(self, dumped: Sequence[Any]) -> None:
        self._mixture.restore(dumped)


class RateE:
    """Evidence that a rate is above `rate` (`is_above`), or below it.

    Of n requests k were events. The e-process of the alternative p is

        prod (p / rate)^k ((1 - p) / (1 - rate))^(n - k).

    One request's expectation is linear in the true rate, 1 when that is `rate`, and for p > rate
    smaller when it is less, for p < rate when it is more. Alternatives have odds that are
    `EFFECTS` times the odds of `rate`. Exact: Wald, "Sequential tests of statistical hypotheses",
    Annals of Mathematical Statistics 16, 1945.
    """

    __slots__ = ("_logs", "_mixture", "rate")

    def __init__(self, rate: float, *, is_above: bool, enough: float) -> None:
        self.rate = rate
        odds = rate / (1.0 - rate)
        others = [odds * e if is_above else odds / e for e in EFFECTS]
        rates = [other / (1.0 + other) for other in others]
        self._logs = [(math.log(p / rate), math.log1p(-p) - math.log1p(-rate)) for p in rates]
        self._mixture = _Mixture(enough)

    @property
    def value(self) -> float:
        """The e-value."""
        return self._mixture.value

    def observe(self, n: int, k: float, dispersion: float) -> None:
        """Count a block. Counting fewer events than there were keeps evidence of `above` valid."""
        hits, misses = k / dispersion, (n - k) / dispersion
        self._mixture.multiply([hits * hit + misses * miss for hit, miss in self._logs])

    def dump(self) -> list[Any]:
        return self._mixture.dump()

    def restore(self, dumped: Sequence[Any]) -> None:
        self._mixture.restore(dumped)


@dataclass(slots=True)
class Dispersion:
    """How much more a variant's events per second vary than independent ones would.

    Pearson's statistic over its degrees of freedom (McCullagh & Nelder, "Generalized linear
    models", 2nd edition 1989, section 4.5): the sum of (k - n p)^2 / (n p (1 - p)) over `blocks`,
    where p is the rate of all, is (sum k^2 / n - (sum k)^2 / sum n) / (p (1 - p)). What is older
    counts less, so that a rate that drifts over hours is not taken for one that jumps.
    """

    blocks: float = 0.0
    n: float = 0.0
    k: float = 0.0
    squares: float = 0.0

    def observe(self, n: int, k: int) -> None:
        """Count a block."""
        if n:
            self.blocks = self.blocks * _DISPERSION_KEPT + 1
            self.n = self.n * _DISPERSION_KEPT + n
            self.k = self.k * _DISPERSION_KEPT + k
            self.squares = self.squares * _DISPERSION_KEPT + k * k / n

    @property
    def value(self) -> float:
        """1 (independent) to `DISPERSION_MAX`."""
        if self.blocks < 1.5 or not 0 < self.k < self.n:
            return 1.0
        rate = self.k / self.n
        pearson = (self.squares - self.k * rate) / (rate * (1.0 - rate))
        found = (_PRIOR_BLOCKS + pearson) / (_PRIOR_BLOCKS + self.blocks - 1)
        return 1.0 if found < _DISPERSION_NOISE else min(found, DISPERSION_MAX)


@dataclass(slots=True)
class Pace:
    """How many events to expect of a block, so that one bad second alone concludes nothing.

    Events of one cause come together, and the first time that happens no dispersion tells. So a
    block counts as at most one standard deviation more than what the last seconds had.
    """

    k: float = _PRIOR_EVENTS
    n: float = 0.0

    def most(self, n: int) -> float:
        """How many events of `n` requests count in full."""
        expected = self.k * (n / self.n if self.n else 1.0)
        return max(2.0, expected + math.sqrt(expected))

    def observe(self, n: int, k: int) -> None:
        """Count a block."""
        # The prior's events belong to a block as large as the first.
        self.n = (self.n or n) * _PACE_KEPT + n
        self.k = self.k * _PACE_KEPT + k


def wilson(k: float, n: float, confidence: float) -> tuple[float, float]:
    """One-sided lower and upper confidence limits of a rate, k of n.

    The score interval (Wilson, "Probable inference, the law of succession, and statistical
    inference", Journal of the American Statistical Association 22, 1927).
    """
    z = NormalDist().inv_cdf(confidence)
    rate, square = k / n, z * z / n
    centre = rate + square / 2
    reach = math.sqrt(square * (rate * (1.0 - rate) + square / 4))
    low, high = (max(0.0, (centre + side * reach) / (1.0 + square)) for side in (-1, 1))
    return (low if k else 0.0), high
