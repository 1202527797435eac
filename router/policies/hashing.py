"""Weighted rendezvous hashing: which variant a unit belongs to, with no table and no store.

Owns the rule that turns (salt, weights, unit) into a variant. It must not know requests, states or
policies. `docs/policies/assignment.md` states the rule for analysts; a test runs that page's code.

1. Every variant draws an exponential variable with rate = its weight, from a hash of
   (salt, variant's name, unit); the smallest draw wins, which happens with probability
   weight / sum of weights.
2. A draw depends on nothing but its own variant. So changing one weight moves units only into or
   out of that variant, and multiplying all weights by one number moves nobody.

Source: Schindelhauer & Schomaker, "Weighted distributed hash tables", SPAA 2005 (the logarithmic
method), which builds on Thaler & Ravishankar's rendezvous hashing, IEEE/ACM ToN 6(1), 1998.
"""

from collections.abc import Mapping
from hashlib import blake2b
from math import inf, log
from typing import Final

_DIGEST_BYTES: Final = 8
_SCALE: Final = 2.0**-64


def _length_prefixed(text: str) -> bytes:
    encoded = text.encode("utf-8")
    return len(encoded).to_bytes(4, "big") + encoded


class Rendezvous:
    """Units to names of variants. Immutable."""

    def __init__(self, salt: str, weights: Mapping[str, float]) -> None:
        """`weights` is variant -> weight, finite and >= 0; variants with weight 0 get no units.

        Raises:
            ValueError: no weight is above 0.
        """
        # The part of the hash before the unit is the same for every request, so it is absorbed
        # once; copying it costs a third of hashing anew. Sorted, so that not even a tie depends
        # on the order of the variants.
        self._entries: Final = tuple(
            (
                blake2b(
                    _length_prefixed(salt) + _length_prefixed(name), digest_size=_DIGEST_BYTES
                ).copy,
                -weight,
                name,
            )
            for name, weight in sorted(weights.items())
            if weight > 0.0
        )
        if not self._entries:
            raise ValueError("no variant has a weight above 0")
        self._first: Final = self._entries[0][2]

    def choose(self, unit: bytes) -> str:
        """The variant `unit` belongs to. Cost: one hash per variant, about 0.5 us each."""
        best, chosen = inf, self._first
        for copy, negative_weight, name in self._entries:
            state = copy()
            state.update(unit)
            draw = (int.from_bytes(state.digest()) + 0.5) * _SCALE
            score = log(draw) / negative_weight
            if score < best:
                best, chosen = score, name
        return chosen
