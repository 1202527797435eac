"""The JSON Schema: it takes what loads, refuses what does not, and explains every key."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from router.config import json_schema
from router.config.backends import Backend
from router.config.document import read
from router.config.model import Config
from router.config.schema import known_keys
from tests.config.support import VALID, mistakes

_EXAMPLES = sorted((Path(__file__).parents[2] / "config").rglob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("path", _EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_valid(validator: Draft202012Validator, path: Path) -> None:
    root = read(path.read_text(), {}).root  # PyYAML takes the key `on` for a boolean
    assert root is not None
    document = root.data
    assert [error.message for error in validator.iter_errors(document)] == []


_VALID: dict[str, Any] = yaml.safe_load(VALID)


def as_yaml(document: dict[str, Any]) -> str:
    """As block YAML; texts stand in quotes only where they must."""
    return yaml.safe_dump(document, default_flow_style=False)


def with_route(**changes: Any) -> dict[str, Any]:
    return {**_VALID, "routes": [{"name": "r", **changes}]}


@pytest.mark.parametrize(
    "document",
    [
        {**_VALID, "workers": "${N}", "drain_timeout": "${D:-1s}", "logging": {"level": "${L}"}},
        {**_VALID, "workers": 4, "pre_stop": 0, "downstream": {"head_bytes": 2048}},
        with_route(policy={"type": "single", "backend": "v1"}),
        with_route(backend="v1", match={"headers": {"x-a": "b", "x-c": {"present": False}}}),
        with_route(backend="v1", headers={"variant": "${SHOW}"}),
    ],
)
def test_what_loads_is_valid(validator: Draft202012Validator, document: dict[str, Any]) -> None:
    env = {"N": "1", "L": "info", "SHOW": "true"}
    assert mistakes(as_yaml(document), env) == []
    assert [error.message for error in validator.iter_errors(document)] == []


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"backends": _VALID["backends"]},
        {**_VALID, "statee": 1},
        {**_VALID, "workers": 0},
        {**_VALID, "workers": "four"},
        {**_VALID, "drain_timeout": "fast"},
        {**_VALID, "drain_timeout": 10},
        {**_VALID, "downstream": {"body_bytes": "64"}},
        {**_VALID, "logging": {"level": "loud"}},
        {**_VALID, "logging": {"access_sample": 1.5}},
        {**_VALID, "listen": "8080"},
        {**_VALID, "state": "redis://"},
        {**_VALID, "backends": {}},
        {**_VALID, "backends": {"a b": {"endpoints": ["http://a:1"]}}},
        {**_VALID, "backends": {"v1": {"endpoints": []}}},
        {**_VALID, "backends": {"v1": {"endpoints": ["a:1"]}}},
        {**_VALID, "backends": {"v1": {"endpoints": ["http://a:1/b"]}}},
        {**_VALID, "backends": {"v1": {"endpoints": [{"weight": 1}]}}},
        {**_VALID, "routes": []},
        with_route(),
        with_route(backend="v1", policy={"type": "single", "backend": "v1"}),
        with_route(policy={"backend": "v1"}),
        with_route(policy={"type": "canery"}),
        with_route(policy={"type": "single"}),
        with_route(policy={"type": "single", "backend": "v1", "weight": 1}),
        with_route(backend="v1", match={"path": "a"}),
        with_route(backend="v1", match={"path": "/a", "path_regex": "b"}),
        with_route(backend="v1", match={"methods": ["get"]}),
        with_route(backend="v1", match={"headers": {"a b": "c"}}),
        with_route(backend="v1", match={"headers": {"a": {"exact": "b", "prefix": "c"}}}),
        with_route(backend="v1", match={"headers": {"a": {}}}),
        with_route(backend="v1", shadow=[{"backend": "v1"}]),
    ],
)
def test_what_does_not_load_is_not_valid(
    validator: Draft202012Validator, document: dict[str, Any]
) -> None:
    assert mistakes(as_yaml(document)) != []
    assert not validator.is_valid(document)


def mappings(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, definition in [("", schema), *schema["$defs"].items()]:
        for key, value in definition.get("properties", {}).items():
            yield f"{name}.{key}", value


def test_every_key_is_described() -> None:
    schema = json_schema()
    for name, value in mappings(schema):
        target = schema["$defs"][value["$ref"].rpartition("/")[2]] if "$ref" in value else value
        assert value.get("description") or target.get("description"), name


def test_defaults_are_written_as_in_yaml() -> None:
    properties = json_schema()["properties"]
    definitions = json_schema()["$defs"]
    assert properties["drain_timeout"]["default"] == "30s"
    assert definitions["Downstream"]["properties"]["head_bytes"]["default"] == "32KiB"
    assert definitions["Logging"]["properties"]["access_sample"]["default"] == "0%"


_DOCUMENT = {
    "backends": {"v1": {"health": {}, "endpoints": [{}]}},
    "routes": [{"match": {"headers": {"x-a": {}}}, "policy": {"type": "single"}}],
}


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        (("backends",), ()),
        (("backends", "v1"), tuple(Backend.model_fields)),
        (("backends", "v1", "endpoints", 0), ("url", "weight")),
        (("routes", 0, "match", "headers", "x-a"), ("exact", "prefix", "regex", "present")),
        (("routes", 0, "policy"), ("type", "backend")),
    ],
)
def test_the_known_keys_of_a_mapping_are_those_of_its_model(
    path: tuple[str | int, ...], keys: tuple[str, ...]
) -> None:
    assert known_keys(Config.model_json_schema(), path, _DOCUMENT) == keys
