"""A rollout's state as JSON-able data, and back."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Final

from router.rollouts.state import Pause, Phase, State

VERSION: Final = 1
"""Of what `dump` returns. Counts up when what an older router would make of it is wrong."""


def dump(state: State) -> dict[str, Any]:
    """As JSON-able data."""
    manual = None if state.manual is None else dict(state.manual)
    return {
        "version": VERSION,
        **asdict(state),
        "phase": state.phase.value,
        "pause": state.pause and state.pause.value,
        "manual": manual,
    }


def restore(dumped: Mapping[str, Any]) -> State:
    """The inverse of `dump`.

    Raises:
        ValueError: it has another version, or is not a dump: something is missing, unknown or odd.
    """
    kept = dict(dumped)
    version = kept.pop("version", None)
    if version != VERSION:
        raise ValueError(f"state of a rollout in version {version!r}, expected {VERSION}")
    if missing := {field.name for field in fields(State)} - kept.keys():
        raise ValueError(f"not a dump of a rollout's state: it lacks {min(missing)}")
    try:
        pause = kept.pop("pause")
        state = State(
            **{**kept, "phase": Phase(kept["phase"])}, pause=None if pause is None else Pause(pause)
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"not a dump of a rollout's state: {error}") from error
    if odd := [name for name, kind in _KINDS.items() if not _is_a(getattr(state, name), kind)]:
        raise ValueError(f"not a dump of a rollout's state: {odd[0]} is {getattr(state, odd[0])!r}")
    return state


_KINDS: Final[Mapping[str, type | tuple[type, ...]]] = {
    **dict.fromkeys(("held_s", "waited_s", "unready_s", "at_s"), (int, float)),
    **dict.fromkeys(("step", "in_step"), int),
    **dict.fromkeys(("is_reversing", "is_started", "is_pushed", "is_switching"), bool),
    **dict.fromkeys(("reason", "cursor"), str),
    "manual": (Mapping, type(None)),
    "evidence": Mapping,
}


def _is_a(value: object, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
