"""What was measured since the last block, by route: by workers, and of KPIs."""

from collections.abc import Iterable, Mapping
from typing import Any

from router.rollouts.measured import ERRORS, Block, Measured


class Measuring:
    """Adds up for the routes it was told of; what others measure is not kept."""

    def __init__(self) -> None:
        self._blocks: dict[str, dict[str, Measured]] = {}

    def keep(self, variants: Mapping[str, Iterable[str]]) -> None:
        """From now on for these routes, and their variants; what is known of others is dropped."""
        before = self._blocks
        self._blocks = {
            route: {name: before.get(route, {}).get(name, Measured()) for name in names}
            for route, names in variants.items()
        }

    def add(self, rows: Iterable[list[Any]]) -> None:
        """Rows of `Stats.measured`."""
        for route, variant, dump in rows:
            measured = self._blocks.get(route, {}).get(variant)
            if measured is not None:
                measured.merge(Measured.restore(dump))

    def see(self, route: str, variant: str, seen: Measured) -> None:
        """What was seen of the variant's KPIs."""
        measured = self._blocks.get(route, {}).get(variant)
        if measured is not None:
            measured.merge(seen)

    def add_ejection(self, backend: str) -> None:
        """One of its endpoints was taken out: an error of the variant, wherever it takes part."""
        for block in self._blocks.values():
            if backend in block:
                block[backend].count(ERRORS, 1, 1)

    def take(self, route: str) -> Block:
        """What was added since it was last taken."""
        block = self._blocks.get(route, {})
        self._blocks[route] = {name: Measured() for name in block}
        return block
