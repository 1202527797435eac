"""`segments:` and `features:`, which put a request into a cell: what has weights of its own.

Owns the order in which segments are asked and the names of cells. It must not know weights or
variants, nor what a condition means (`conditions.py`).

1. Segments are asked in the order of the file; the first whose conditions all hold has the request.
   What none has is in the cell `""`, the route's own weights.
2. Features make one cell of every combination of declared values, as in `country=AU,plan=other`.
3. All is compiled before traffic. Rules in a row that ask one thing for its value are one look-up,
   however many; any other rule costs what its conditions cost, and only requests of its route.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Annotated, Final

from pydantic import AfterValidator, Field, model_validator

from router.messages import Request
from router.policies.conditions import Read, Subject, When

SEGMENTS_MAX: Final = 64
CELLS_MAX: Final = 64
"""Combinations of features: each has weights, and needs rewards, of its own."""
CELL_MAX_BYTES: Final = 200
"""A receipt carries the name of the cell."""
OTHER: Final = "other"
"""What a feature is when it has none of its declared values."""

SegmentName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
FeatureValue = Annotated[str, Field(pattern=r"^[!-+\--<>-~]{1,64}$")]
"""Printable ASCII without a comma, an equals sign or a space."""


class Feature(Subject):
    """Something known of a request that may tell which variant is best for it."""

    among: Annotated[
        tuple[FeatureValue, ...], Field(alias="in", min_length=1, max_length=CELLS_MAX - 1)
    ]
    """The values that count as such; any other, or none, is `other`."""

    @model_validator(mode="after")
    def _distinct(self) -> "Feature":
        if len(set(self.among)) < len(self.among):
            raise ValueError("a value is listed twice")
        if OTHER in self.among:
            raise ValueError(f"{OTHER!r} stands for every value that is not listed")
        return self


def _few(features: dict[str, Feature]) -> dict[str, Feature]:
    cells = prod(len(feature.among) + 1 for feature in features.values())
    if cells > CELLS_MAX:
        raise ValueError(f"{cells} combinations of values, expected no more than {CELLS_MAX}")
    longest = max((len(cell.encode()) for cell in cells_of(features)), default=0)
    if longest > CELL_MAX_BYTES:
        raise ValueError(
            f"names and values make {longest} characters, expected at most {CELL_MAX_BYTES}"
        )
    return features


Features = Annotated[dict[SegmentName, Feature], AfterValidator(_few)]
"""Feature -> where it comes from. Their combinations are cells."""


def cells_of(features: Mapping[str, Feature]) -> dict[str, dict[str, str]]:
    """Every cell -> the value of each feature in it. None without features."""
    if not features:
        return {}
    values = [(*feature.among, OTHER) for feature in features.values()]
    known = [dict(zip(features, combination, strict=True)) for combination in product(*values)]
    return {",".join(f"{name}={value}" for name, value in one.items()): one for one in known}


def name_segments(names: Sequence[str | None]) -> tuple[str, ...]:
    """The cells of segments with these names; those without are `segment-1`, `segment-2`...

    Raises:
        ValueError: two have the same name.
    """
    cells = tuple(name or f"segment-{place}" for place, name in enumerate(names, 1))
    for place, cell in enumerate(cells):
        if cell in cells[:place]:
            raise ValueError(
                f"the segment name {cell!r} is taken by segment {cells.index(cell) + 1}"
            )
    return cells


def compile_segments(rules: Sequence[tuple[str, tuple[When, ...]]]) -> Callable[[Request], str]:
    """A function from a request to the cell of the first rule that holds, or `""`."""
    steps: list[Callable[[Request], str | None]] = []
    subject: tuple[str, object] | None = None
    table: dict[bytes | None, str] = {}
    for cell, conditions in rules:
        first, values = conditions[0], conditions[0].values
        if len(conditions) > 1 or values is None:
            subject = None
            steps.append(_all_hold(cell, conditions))
            continue
        if first.subject != subject:
            subject, table = first.subject, {}
            steps.append(_looked_up(first.reader(), table))
        table.update((value, cell) for value in values if value not in table)
    return _first(tuple(steps))


def compile_features(features: Mapping[str, Feature]) -> Callable[[Request], str]:
    """A function from a request to its combination of features."""
    readers = [
        (feature.reader(), {value.encode(): value for value in feature.among}.get)
        for feature in features.values()
    ]
    names = {tuple(values.values()): cell for cell, values in cells_of(features).items()}

    def cell_of(request: Request) -> str:
        return names[tuple([known(read(request) or b"", OTHER) for read, known in readers])]

    return cell_of


def shadowed(rules: Sequence[tuple[When, ...]]) -> Iterator[tuple[int, int]]:
    """Places of rules that surely never get a request, each with that of one that takes all of
    its requests. Cost: O(n^2) in the rules."""
    for place, rule in enumerate(rules):
        for earlier, other in enumerate(rules[:place]):
            if all(any(mine.covers(one) for one in rule) for mine in other):
                yield place, earlier
                break


def _all_hold(cell: str, conditions: Sequence[When]) -> Callable[[Request], str | None]:
    tests = [(condition.reader(), condition.test()) for condition in conditions]

    def step(request: Request) -> str | None:
        for read, holds in tests:
            if not holds(read(request)):
                return None
        return cell

    return step


def _looked_up(read: Read, table: Mapping[bytes | None, str]) -> Callable[[Request], str | None]:
    return lambda request: table.get(read(request))


def _first(steps: Sequence[Callable[[Request], str | None]]) -> Callable[[Request], str]:
    def cell_of(request: Request) -> str:
        for step in steps:
            cell = step(request)
            if cell is not None:
                return cell
        return ""

    return cell_of
