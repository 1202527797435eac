"""What would change between two configs, for `pointsman check --diff`.

Compares values, not text: comments, order of keys and spelling of units make no difference. Things
with a name (routes, backends, endpoints, variants) are compared by name; other lists as a whole.
Secrets are never shown.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from router.config.model import CANNOT_CHANGE, Config, Route
from router.policies import Options
from router.units import (
    format_duration,
    format_share,
    format_size,
    parse_duration,
    parse_share,
    parse_size,
)

Kind = Literal["added", "removed", "changed"]

_SIGNS: Final[Mapping[Kind, str]] = {"added": "+", "removed": "-", "changed": "~"}
_NAMES: Final = ("label", "name", "url", "backend")
"""Fields that identify an entry of a list."""
_FORMATS: Final[Mapping[Any, Callable[[Any], str]]] = {
    parse_duration: format_duration,
    parse_size: format_size,
    parse_share: format_share,
}


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `path` is a YAML path with names for indexes: `routes[animals].salt`."""

    path: str
    kind: Kind
    sentence: str
    needs_restart: bool = False

    def __str__(self) -> str:
        restart = " (refused at run time, needs a restart)" if self.needs_restart else ""
        return f"{_SIGNS[self.kind]} {self.sentence}{restart}"


def compare(old: Config, new: Config) -> tuple[Change, ...]:
    """Every difference, in the order of the reference."""
    changes = []
    for path, kind, sentence in _models("", old, new):
        top = path.partition(".")[0].partition("[")[0]
        changes.append(Change(path, kind, sentence, top in CANNOT_CHANGE))
    return tuple(changes)


def compare_policies(route: str, old: Options, new: Options) -> tuple[Change, ...]:
    """Every difference between two policies of one route."""
    rows = () if old == new else _values(f"routes[{route}].policy", old, new, None)
    return tuple(Change(path, kind, sentence) for path, kind, sentence in rows)


def render_changes(changes: tuple[Change, ...]) -> str:
    """One line a change: `~ routes[animals].policy.weight changes from 10% to 30%`."""
    return "\n".join(map(str, changes)) or "nothing would change"


_Row = tuple[str, Kind, str]


def _models(path: str, old: BaseModel, new: BaseModel) -> Iterator[_Row]:
    before, after = _fields(old), _fields(new)
    for key, (info, new_value) in after.items():
        _, old_value = before[key]
        place = f"{path}.{key}" if path else key
        if old_value != new_value:
            yield from _values(place, old_value, new_value, info)


def _fields(model: BaseModel) -> dict[str, tuple[FieldInfo | None, Any]]:
    """Key in the YAML -> its declaration and value. A bare `backend:` is the policy `single`."""
    fields: dict[str, tuple[FieldInfo | None, Any]] = {
        info.alias or name: (info, getattr(model, name))
        for name, info in type(model).model_fields.items()
    }
    if isinstance(model, Route):
        del fields["backend"]
        fields["policy"] = (None, model.options)
    return fields


def _values(path: str, old: Any, new: Any, info: FieldInfo | None) -> Iterator[_Row]:
    if isinstance(old, BaseModel) and type(old) is type(new):
        yield from _models(path, old, new)
    elif isinstance(old, dict) and isinstance(new, dict):
        yield from _entries(path, old, new, "{}.{}")
    elif (olds := _named(old)) is not None and (news := _named(new)) is not None:
        yield from _entries(path, olds, news, "{}[{}]")
        kept_before = [name for name in olds if name in news]
        kept_after = [name for name in news if name in olds]
        if kept_before != kept_after:
            yield path, "changed", f"the order in {path} changes to {', '.join(news)}"
    elif info is not None and not info.repr:
        yield path, "changed", f"{path} changes"
    else:
        yield path, "changed", f"{path} changes from {_show(old, info)} to {_show(new, info)}"


def _entries(
    path: str, old: Mapping[str, Any], new: Mapping[str, Any], form: str
) -> Iterator[_Row]:
    for name in old:
        place = form.format(path, name)
        if name not in new:
            yield place, "removed", f"{place} is removed"
        elif old[name] != new[name]:
            yield from _values(place, old[name], new[name], None)
    for name in new:
        if name not in old:
            place = form.format(path, name)
            yield place, "added", f"{place} is added"


def _named(value: Any) -> dict[str, Any] | None:
    """Entries by their name, when each has one and no two the same."""
    if not isinstance(value, tuple) or not all(isinstance(entry, BaseModel) for entry in value):
        return None
    for key in _NAMES:
        named = {str(getattr(entry, key)): entry for entry in value if hasattr(entry, key)}
        if len(named) == len(value):
            return named
    return None


def _show(value: Any, info: FieldInfo | None) -> str:
    """`value` as it would stand in the YAML."""
    if value is None:
        return "nothing"
    if info is not None and not info.repr:
        return "(not shown)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, BaseModel):
        kind = getattr(value, "type", None)
        return f"the policy {kind}" if kind else _show_fields(value)
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_show(one, None)}' for key, one in value.items())}}}"
    if isinstance(value, tuple):
        return f"[{', '.join(_show(entry, None) for entry in value)}]"
    parsers = [getattr(one, "func", None) for one in _metadata(info)]
    for parse, form in _FORMATS.items():
        if parse in parsers:
            return form(value)
    return str(value)


def _metadata(info: FieldInfo | None) -> Iterator[Any]:
    """What its field declares of a value, or the alternative to nothing does (`Share | None`)."""
    if info is not None:
        yield from info.metadata
        for alternative in get_args(info.annotation):
            yield from getattr(alternative, "__metadata__", ())


def _show_fields(model: BaseModel) -> str:
    fields = _fields(model)
    given = ((key, *fields[key]) for key in fields if key in model.model_fields_set)
    return f"{{{', '.join(f'{key}: {_show(value, info)}' for key, info, value in given)}}}"
