"""`experiment:`, the part of a layer's units that an experiment has to itself.

Owns the place of a unit in a layer and who has which range of it. It must not know which variant a
unit gets inside (`hashing.py`).

1. A layer places every unit in [0, 1) by its hash. An experiment of the layer has a range of
   places; no place is in two, so no unit is in two experiments of one layer.
2. The first places of a layer are held out: their units are in no experiment of it.
3. Ranges follow each other in the order of the file, after the hold-out; `start` sets one
   elsewhere, so that it stays when those before it come and go.
4. The place says nothing of the variant: that is drawn with the route's salt, this with the
   layer's. So what an earlier experiment of the layer did to its units spreads evenly over the
   variants of a later one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated, Final

from pydantic import Field, model_validator

from router.messages import Decision
from router.strict import Model
from router.units import Share, format_share

HOLDOUT_CELL: Final = "~holdout"
"""The cell of units that are held out: the name of no segment."""
_SLACK: Final = 1e-9
"""What rounding may add to a sum of shares."""
_SCALE: Final = 2.0**-64


class Experiment(Model):
    """Which units take part. The others get the control."""

    layer: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    """Experiments of one layer have no unit in common."""
    share: Annotated[Share, Field(gt=0)] = 1.0
    """Share of the layer's units that take part."""
    start: Share | None = None
    """Where its range of the layer begins; by default after that of the experiment before it."""
    holdout: Annotated[Share, Field(lt=1)] = 0.0
    """Share of the layer's units that are in no experiment of it. One experiment says it, or all
    say the same."""
    salt: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Salts the place of a unit in the layer; by default the layer's name. All say the same."""
    control: Annotated[str, Field(min_length=1)] | None = None
    """The variant of units that do not take part; by default the first."""

    @model_validator(mode="after")
    def _fits(self) -> "Experiment":
        start = self.holdout if self.start is None else self.start
        if start < self.holdout - _SLACK:
            raise ValueError(
                f"start {format_share(start)} is within the holdout, {format_share(self.holdout)}"
            )
        if start + self.share > 1 + _SLACK:
            raise ValueError(
                f"it would end at {format_share(start + self.share)} of the layer, past 100%"
            )
        return self

    def control_among(self, active: Sequence[str]) -> str:
        """Who answers units that do not take part.

        Raises:
            ValueError: `control` is not among the `active` variants.
        """
        if self.control is not None and self.control not in active:
            raise ValueError(
                f"control {self.control!r} is not an active variant: {', '.join(active)}"
            )
        return self.control or active[0]


@dataclass(frozen=True, slots=True)
class Slot:
    """The range of one experiment in its layer: places from `start` to below `end`."""

    salt: str
    holdout: float
    start: float
    end: float


class Admission:
    """Whether a unit takes part in an experiment; one that does not gets `control`."""

    def __init__(self, slot: Slot, control: str) -> None:
        self._hash = blake2b(_prefix(slot.salt), digest_size=8).copy
        self._slot = slot
        self.control = control
        self._outside = Decision(control, 1.0, "outside")
        self._held_out = Decision(control, 1.0, "holdout", cell=HOLDOUT_CELL)

    def decide(self, unit: bytes) -> Decision | None:
        """What `unit` gets without taking part, or None: it takes part. Cost: one hash."""
        state = self._hash()
        state.update(unit)
        place = int.from_bytes(state.digest()) * _SCALE
        slot = self._slot
        if slot.start <= place < slot.end:
            return None
        return self._held_out if place < slot.holdout else self._outside


def place_of(salt: str, unit: bytes) -> float:
    """Where `unit` is in the layer with this salt: in [0, 1]."""
    digest = blake2b(_prefix(salt) + unit, digest_size=8).digest()
    return int.from_bytes(digest) * _SCALE


def slots(experiments: Mapping[str, Experiment]) -> dict[str, Slot]:
    """The range of every experiment, by the name of its route, in the order of the file."""
    held_out: dict[str, float] = {}
    salts: dict[str, str] = {}
    for one in experiments.values():
        held_out[one.layer] = max(held_out.get(one.layer, 0.0), one.holdout)
        if one.salt is not None:
            salts.setdefault(one.layer, one.salt)
    ends = dict(held_out)
    found: dict[str, Slot] = {}
    for route, one in experiments.items():
        # rounded, so that equal places are equal however they were added up
        start = round(ends[one.layer] if one.start is None else one.start, 12)
        end = round(start + one.share, 12)
        ends[one.layer] = end
        salt = salts.get(one.layer, one.layer)
        # the last place is below 1, but rounding may call it 1
        found[route] = Slot(salt, held_out[one.layer], start, 2.0 if end >= 1 - _SLACK else end)
    return found


def conflicts(experiments: Mapping[str, Experiment]) -> Iterator[tuple[str, str]]:
    """Routes whose experiment cannot be in its layer beside those before it, and why not."""
    found = slots(experiments)
    seen: dict[str, list[str]] = {}
    for route, one in experiments.items():
        slot, others = found[route], seen.setdefault(one.layer, [])
        said = [experiments[other] for other in others]
        if any(one.salt != other.salt for other in said):
            yield route, f"another experiment of layer {one.layer} has another salt"
        if one.holdout and any(other.holdout not in (0.0, one.holdout) for other in said):
            yield route, f"another experiment of layer {one.layer} has another holdout"
        end = slot.start + one.share
        if end > 1 + _SLACK:
            yield route, f"layer {one.layer} is full: this would end at {format_share(end)} of it"
        elif slot.start < slot.holdout - _SLACK:
            yield route, f"its range overlaps the holdout, the first {format_share(slot.holdout)}"
        else:
            for other in others:
                taken = found[other]
                if slot.start < taken.end - _SLACK and taken.start < slot.end - _SLACK:
                    yield (
                        route,
                        f"{format_share(slot.start)} to {format_share(end)} of layer {one.layer} "
                        f"overlaps the experiment of route {other}",
                    )
                    break
        others.append(route)


def _prefix(salt: str) -> bytes:
    """As in `hashing.py`, with the empty name, which no variant has."""
    encoded = salt.encode("utf-8")
    return len(encoded).to_bytes(4, "big") + encoded + bytes(4)
