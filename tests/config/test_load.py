"""Bytes to a Loaded config, or to every mistake in them."""

import hashlib
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from router.config import Config, ConfigError, load_file, load_text
from router.config.load import FILE_MAX_BYTES
from tests.config.support import VALID, load, mistakes

_EXAMPLES = sorted((Path(__file__).parents[2] / "config").rglob("*.yaml"))


def test_a_loaded_config_validates_again_from_its_document_through_json() -> None:
    loaded = load("workers: ${N}\ndrain_timeout: 5s\n" + VALID, {"N": "3"})
    assert loaded.config.workers == 3
    assert loaded.config.drain_timeout == 5.0
    assert Config.model_validate(json.loads(json.dumps(loaded.document))) == loaded.config


def test_a_loaded_config_knows_source_and_digest() -> None:
    loaded = load(VALID)
    assert loaded.source == "f"
    assert loaded.digest == hashlib.sha256(VALID.encode()).hexdigest()
    assert loaded.warnings == ()


@pytest.mark.parametrize("path", _EXAMPLES, ids=lambda path: path.name)
def test_every_example_loads_without_environment_or_warnings(path: Path) -> None:
    loaded = load_file(path, {})
    assert loaded.warnings == ()
    assert Config.model_validate(json.loads(json.dumps(loaded.document))) == loaded.config


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    text = """\
workers: ${N}
drain_timeout: fast
statee: x
backends:
  v1: {endpoints: [http://a:1]}
  v1: {endpoints: [http://b:1]}
  v2: {endpoints: []}
routes:
  - name: a
    policy: {type: canery}
  - name: a
    policy:
      type: canary
      stable: v11
      canary: v2
      weight: 60%
      sticky: {header: x-user}
"""
    assert mistakes(text) == [
        "f:1:10: workers: environment variable N is not set",
        "f:2:16: drain_timeout: 'fast' is not a duration, write a number and us, ms, s, m, h or d,"
        " like 250ms",
        "f:3:1: statee: unknown key 'statee' (did you mean 'state'?)",
        "f:6:3: backends.v1: the key 'v1' is given twice, first in line 5",
        "f:7:19: backends.v2.endpoints: expected at least 1 entry, found 0",
        "f:10:20: routes[0].policy.type: unknown type 'canery' (did you mean 'canary'?)",
        "f:11:11: routes[1].name: the route name 'a' is taken by routes[0]",
        "f:14:15: routes[1].policy.stable: no backend is named 'v11' (did you mean 'v1'?)",
        "f:16:15: routes[1].policy.weight: 60% is more than 50%: past that, promote (make the"
        " canary the stable version)",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"", "f:1:1: the file is empty"),
        (b"- a", "f:1:1: expected a mapping, found a list"),
        (b"text", "f:1:1: expected a mapping, found text"),
        (b"a: b\n\xc3\xa9c: \xff", "f:2:6: is not UTF-8"),
        (b"\xff\xfea\x00", "f:1:1: is not UTF-8"),
        (b"x" * (FILE_MAX_BYTES + 1), f"f: is larger than {FILE_MAX_BYTES} bytes"),
    ],
)
def test_what_is_no_mapping_in_utf_8_is_refused(text: bytes, line: str) -> None:
    assert mistakes(text) == [line]


def test_a_byte_order_mark_is_passed_over() -> None:
    assert mistakes(b"\xef\xbb\xbf" + VALID.encode()) == []


def test_what_follows_from_an_unreadable_value_is_not_told() -> None:
    text = VALID + "admin:\n  token: ${T}\n  listen: ${L}\nlogging: *none\n"
    assert mistakes(text) == [
        "f:4:10: admin.token: environment variable T is not set",
        "f:5:11: admin.listen: environment variable L is not set",
        "f:6:10: logging: the alias *none has no anchor before it",
    ]


def test_a_secret_is_never_shown() -> None:
    env = {"TOKEN": "hunter2", "KEY": "5555555555555555"}
    text = VALID + 'admin: {token: "${TOKEN}"}\nfeedback:\n  key: ${KEY}\n'
    lines = "\n".join(mistakes(text, env))
    assert lines == (
        "f:3:16: admin.token: expected at least 16 characters, found 7\n"
        "f:5:8: feedback.key: expected text, found a number (put it in quotes)"
    )


def test_a_secret_is_not_in_the_config_s_text() -> None:
    loaded = load(VALID + "admin: {token: 0123456789abcdefg}\n")
    assert loaded.config.admin.token == "0123456789abcdefg"
    assert "0123456789abcdefg" not in repr(loaded.config)


def test_a_file_that_cannot_be_read_is_a_config_error(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "no.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError) as caught:
            load_file(path, {})
        assert str(caught.value).startswith(f"{path}: cannot be read: {reason}")


def test_a_file_is_named_in_its_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "router.yaml"
    path.write_text("workers: 0\n" + VALID)
    with pytest.raises(ConfigError) as caught:
        load_file(path, {})
    assert str(caught.value) == f"{path}:1:10: workers: expected at least 1 or 'auto', found 0"


@given(st.binary(max_size=80))
def test_any_bytes_are_a_config_or_a_config_error(text: bytes) -> None:
    mistakes(text)


_KEYS = st.sampled_from(
    [
        *("listen", "admin", "token", "workers", "backends", "routes", "endpoints", "name", "x"),
        *("policy", "type", "variants", "backend", "match", "headers", "path", "shadow", "weight"),
    ]
)
_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["canary", "ab", "10%", "1s", "v1", "http://a:1", "${X}", "/", "off"]),
)
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(_KEYS, _TREES, max_size=5))
def test_any_tree_of_known_keys_is_a_config_or_a_config_error(tree: object) -> None:
    mistakes(yaml.safe_dump(tree, allow_unicode=True))


@given(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["single", "canary", "ab", "bandit"]),
            "variants": _TREES,
            "stable": _LEAVES,
            "canary": _LEAVES,
            "backend": _LEAVES,
        }
    )
)
def test_any_policy_is_a_config_or_a_config_error(policy: object) -> None:
    document = {
        "backends": {"v1": {"endpoints": ["http://a:1"]}},
        "routes": [{"name": "r", "policy": policy}],
    }
    mistakes(yaml.safe_dump(document))


def test_a_thousand_routes_load() -> None:
    backends = "".join(f"  b{i}: {{endpoints: [http://h{i}:1]}}\n" for i in range(1000))
    routes = "".join(
        f"  - {{name: r{i}, backend: b{i}, match: {{path: /m{i}/}}}}\n" for i in range(1000)
    )
    loaded = load_text(f"backends:\n{backends}routes:\n{routes}".encode(), "f", {})
    assert len(loaded.config.routes) == 1000
    assert loaded.warnings == ()
