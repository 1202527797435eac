"""The reference page and the full example name every key, with its default."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router.config import Config, json_schema, load_file
from router.config.document import read

_ROOT = Path(__file__).parents[2]
_REFERENCE = (_ROOT / "docs" / "configuration.md").read_text()
_EXAMPLE = _ROOT / "config" / "router.yaml"
_TLS_EXAMPLE = _ROOT / "config" / "examples" / "tls.yaml"
"""Apart, because a router does not start without the files that these keys name."""
_NOTIFY_EXAMPLE = _ROOT / "config" / "examples" / "notify.yaml"
"""Apart, because the default is that nobody is told and nobody is asked."""


def keys() -> Iterator[tuple[str, str, str]]:
    """(model, key, default as it stands in the YAML, `required`, or empty)."""
    schema = json_schema()
    for model, definition in [("Config", schema), *schema["$defs"].items()]:
        for key, value in definition.get("properties", {}).items():
            default = value.get("default", "")
            if key in definition.get("required", ()):
                default = "required"
            elif isinstance(default, bool):
                default = str(default).lower()
            yield model, key, str(default)


@pytest.mark.parametrize(("model", "key", "default"), list(keys()))
def test_the_reference_has_a_row_for_every_key(model: str, key: str, default: str) -> None:
    cells = re.findall(rf"^\| `{key}` \|([^|]*)\|", _REFERENCE, re.MULTILINE)
    assert cells, f"{model}.{key} has no row"
    if default:
        assert default in [cell.strip("` ") for cell in cells]


def test_the_reference_has_no_row_for_a_key_that_does_not_exist() -> None:
    rows = set(re.findall(r"^\| `([a-z0-9_]+)` \|", _REFERENCE, re.MULTILINE))
    assert rows == {key for _, key, _ in keys()}


def all_keys(data: Any) -> Iterator[str]:
    if isinstance(data, dict):
        yield from data
        for value in data.values():
            yield from all_keys(value)
    elif isinstance(data, list):
        for value in data:
            yield from all_keys(value)


def test_the_examples_have_every_key() -> None:
    written: set[str] = set()
    for path in (_EXAMPLE, _TLS_EXAMPLE, _NOTIFY_EXAMPLE):
        root = read(path.read_text(), {}).root
        assert root is not None
        written |= set(all_keys(root.data))
    assert {key for _, key, _ in keys()} - written == set()


def test_the_example_s_settings_are_the_defaults() -> None:
    config = load_file(_EXAMPLE, {}).config
    rest = {"backends": config.backends, "routes": config.routes}
    assert config == Config(**rest)
    assert config.backends["cat-dog"].timeout == config.backends["cat-dog-koala"].timeout
    assert config.backends["cat-dog"].limits == config.backends["cat-dog-koala"].limits
