"""Who names which backend: the backends that routes, policies and shadows mention, and where.

Works on the document, also where it has mistakes: what is broken is passed over.
"""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from router.config.problems import Path
from router.policies import POLICIES, Options

Reference = tuple[str, Path]
"""The name of a backend, and where it is mentioned."""


def references(path: Path, route: dict[str, Any], options: Options | None) -> Iterator[Reference]:
    backend, policy, shadows = route.get("backend"), route.get("policy"), route.get("shadow")
    if isinstance(backend, str):
        yield backend, (*path, "backend")
    mentioned = list(_mentioned(policy, (*path, "policy")))
    if options is not None:
        names = {variant.name for variant in options.variants()}
        mentioned = [one for one in mentioned if one[0] in names]
    yield from mentioned
    for i, shadow in enumerate(shadows if isinstance(shadows, list) else ()):
        if isinstance(shadow, dict) and isinstance(shadow.get("backend"), str):
            yield shadow["backend"], (*path, "shadow", i, "backend")


def options_of(policy: Any) -> Options | None:
    """The options of a policy, or None when it is none or has mistakes of its own."""
    kind = policy.get("type") if isinstance(policy, dict) else None
    if not isinstance(kind, str) or kind not in POLICIES:
        return None
    try:
        return POLICIES[kind].model_validate(policy)
    except ValidationError:
        return None


def _mentioned(policy: Any, path: Path) -> Iterator[Reference]:
    """Texts in a policy that name backends: the fields that its models declare as plain `str`."""
    kind = policy.get("type") if isinstance(policy, dict) else None
    if isinstance(kind, str) and kind in POLICIES:
        yield from _plain_texts(POLICIES[kind], policy, path)


def _plain_texts(model: type[BaseModel], data: Any, path: Path) -> Iterator[Reference]:
    if not isinstance(data, dict):
        return
    for name, field in model.model_fields.items():
        key = field.alias or name
        value, place = data.get(key), (*path, key)
        if field.annotation is str and not field.metadata and isinstance(value, str):
            yield value, place
        inner = next(iter(get_args(field.annotation)), None)
        if isinstance(value, list) and isinstance(inner, type) and issubclass(inner, BaseModel):
            for i, entry in enumerate(value):
                yield from _plain_texts(inner, entry, (*place, i))
