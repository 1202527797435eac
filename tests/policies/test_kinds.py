"""What every policy kind has: one file, a test, an example, a page; and what the pages promise."""

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

import router.policies
from router.config.model import Config
from router.policies import POLICIES, Options, Scope, register
from tests.policies.requests import options, scope, user

ROOT = Path(__file__).parents[2]
KINDS = sorted(POLICIES)
PAGE = (ROOT / "docs/policies/assignment.md").read_text()


def snippet() -> str:
    match = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert match is not None
    return match[1]


def example(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / f"config/examples/{name}.yaml").read_text())
    return document


def test_every_module_is_imported_by_the_package_and_registers_at_most_one_kind() -> None:
    homes = [kind.__module__ for kind in POLICIES.values()]

    assert len(set(homes)) == len(homes)
    assert all(
        home == f"router.policies.{kind}" for kind, home in zip(POLICIES, homes, strict=True)
    )
    before = dict(POLICIES)
    for module in pkgutil.iter_modules(router.policies.__path__):
        importlib.import_module(f"router.policies.{module.name}")
    assert before == POLICIES


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_test_an_example_and_a_page(kind: str) -> None:
    assert (ROOT / f"tests/policies/test_{kind}.py").is_file()
    route = Config.model_validate(example(kind)).routes[0]
    assert route.options.kind == kind
    page = (ROOT / f"docs/policies/{kind}.md").read_text()
    assert page.startswith(f"# `{kind}`\n")


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_of_a_kind_is_on_its_page_and_described_in_the_schema(kind: str) -> None:
    page = (ROOT / f"docs/policies/{kind}.md").read_text()
    for key, schema in POLICIES[kind].model_json_schema()["properties"].items():
        if key != "type":
            assert f"`{key}`" in page
            assert schema.get("description")


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_every_kind_sum_to_one(kind: str) -> None:
    policy = Config.model_validate(example(kind)).routes[0].options
    assignment = policy.build(scope())

    assert sum(v.weight for v in policy.variants()) == pytest.approx(1.0)
    assert sum(assignment.weights.values()) == pytest.approx(1.0)
    assert set(assignment.weights) == {v.name for v in policy.variants()}


def test_the_shadow_example_is_a_config_with_a_shadow() -> None:
    assert Config.model_validate(example("shadow")).routes[0].shadow


def test_a_kind_cannot_be_registered_twice() -> None:
    class Impostor(Options):
        type: Literal["single"] = "single"

    with pytest.raises(ValueError, match="'single' is registered twice"):
        register(Impostor)


def test_the_code_on_the_assignment_page_agrees_with_the_router() -> None:
    namespace: dict[str, Any] = {}
    exec(snippet(), namespace)  # noqa: S102 - the page's own code is what is tested
    canary = options(
        type="canary",
        stable="cat-dog",
        canary="cat-dog-koala",
        weight="10%",
        sticky={"header": "x-user-id"},
    ).build(Scope("r", "sälz", lambda: "", None))

    for i in range(500):
        weights = {"cat-dog": 0.9, "cat-dog-koala": 0.1}
        expected = namespace["assign"]("sälz", weights, f"user-{i}".encode())
        assert canary.assign(user(f"user-{i}"), 0.5).variant == expected


def test_the_code_on_the_assignment_page_runs_by_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", snippet()], capture_output=True, text=True, check=True
    )

    assert done.stdout == "cat-dog\n"
