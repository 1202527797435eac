"""The JSON Schema of the YAML, for editors and for finding the keys a mapping may have.

Made from the models. Where pydantic's idea differs from the file's it is changed here:

1. A policy must name its `type`; a default is written as in YAML (`30s`, not 30.0).
2. A mapping whose keys follow a pattern has no others.
3. A scalar may also be `${...}`, for editors see the file before interpolation.
"""

from collections.abc import Iterator
from typing import Any, Final

from pydantic import TypeAdapter

from router.config.model import Config
from router.config.problems import Path
from router.policies import POLICIES
from router.units import Duration, Share, Size, format_duration, format_share, format_size

Schema = dict[str, Any]

_FORMATS: Final = {
    TypeAdapter(kind).json_schema()["anyOf"][0]["pattern"]: show
    for kind, show in ((Duration, format_duration), (Size, format_size), (Share, format_share))
}
"""The pattern of a unit's text -> how a number is written in that unit."""
_INTERPOLATED: Final = {"$ref": "#/$defs/Interpolated"}
_SCALARS: Final = ("string", "integer", "number", "boolean")


def json_schema() -> Schema:
    """The schema (JSON Schema 2020-12) of a config file."""
    schema = Config.model_json_schema()
    for name in (options.__name__ for options in POLICIES.values()):
        definition = schema["$defs"][name]
        definition["required"] = ["type", *definition.get("required", ())]
        del definition["properties"]["type"]["default"]
        definition["properties"]["type"].setdefault("description", definition["description"])
    for definition in (schema, *schema["$defs"].values()):
        properties = definition.get("properties", {})
        for name, value in properties.items():
            properties[name] = _as_in_yaml(value)
    schema["$defs"]["Interpolated"] = {
        "type": "string",
        "pattern": r"\$\{",
        "description": "Text from the environment: ${NAME} or ${NAME:-default}.",
    }
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Pointsman"}
    return {**head, **{key: value for key, value in schema.items() if key != "title"}}


def known_keys(schema: Schema, path: Path, document: Any) -> tuple[str, ...]:
    """The keys that the mapping at `path` of `document` may have; empty when any name will do.

    `schema` is `Config.model_json_schema()`: making it takes as long as looking up 1,000 paths.
    """
    branches, data = [schema], document
    for step in path:
        branches = [
            below
            for branch in branches
            for plain in _plain(schema, branch, data)
            for below in _below(plain, step)
        ]
        data = data[step]
    plain_branches = (plain for branch in branches for plain in _plain(schema, branch, data))
    return tuple(
        dict.fromkeys(key for plain in plain_branches for key in plain.get("properties", ()))
    )


def _as_in_yaml(schema: Schema) -> Schema:
    """`schema` of a value, changed as the module's docstring says."""
    schema = {key: value for key, value in schema.items() if key != "title"}
    default = _default(schema, schema.pop("default", None))
    notes = {} if default is None else {"default": default}
    if "description" in schema:
        notes["description"] = schema.pop("description")
    if "items" in schema:
        schema["items"] = _as_in_yaml(schema["items"])
    if "patternProperties" in schema:
        values = schema["patternProperties"]
        schema["patternProperties"] = {key: _as_in_yaml(value) for key, value in values.items()}
        schema["additionalProperties"] = False
    if "anyOf" in schema:
        inner = [_as_in_yaml(branch) for branch in schema["anyOf"]]
        flat = [one for branch in inner for one in branch.get("anyOf", (branch,))]
        schema["anyOf"] = [one for i, one in enumerate(flat) if one not in flat[:i]]
    elif _is_restricted_scalar(schema):
        schema = {"anyOf": [schema, _INTERPOLATED]}
    return {**schema, **notes}


def _is_restricted_scalar(schema: Schema) -> bool:
    """Whether `${...}` would be refused. A policy's `type` selects the schema, so it stays."""
    is_scalar = schema.get("type") in _SCALARS or "enum" in schema
    return is_scalar and schema != {"type": "string"} and schema.get("const") not in POLICIES


def _default(schema: Schema, value: Any) -> Any:
    """`value` as it would stand in the YAML; None where showing it helps nobody."""
    if value is None or isinstance(value, dict | list):
        return None
    show = next(
        (
            _FORMATS[branch["pattern"]]
            for branch in schema.get("anyOf", ())
            if branch.get("pattern") in _FORMATS
        ),
        None,
    )
    return value if show is None or isinstance(value, str) else show(value)


def _plain(root: Schema, schema: Schema, data: Any) -> Iterator[Schema]:
    """The schemas that `schema` may stand for, without references and alternatives."""
    discriminator = schema.get("discriminator")
    if discriminator is not None and isinstance(data, dict):
        chosen = discriminator["mapping"].get(str(data.get(discriminator["propertyName"])))
        if chosen is not None:
            schema = {"$ref": chosen}
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    branches = schema.get("anyOf") or schema.get("oneOf") or ()
    if "properties" in schema or not branches:
        yield schema
    else:
        for branch in branches:
            yield from _plain(root, branch, data)


def _below(schema: Schema, step: str | int) -> Iterator[Schema]:
    if isinstance(step, int):
        yield from (schema[key] for key in ("items",) if key in schema)
    elif step in schema.get("properties", {}):
        yield schema["properties"][step]
    else:
        yield from schema.get("patternProperties", {}).values()
