"""What the repository says of itself is true: examples load, links lead on, the image fits."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router import __version__
from router.cli import _parser
from router.config import Loaded, load_text
from router.config.document import read
from router.config.model import Config, Route
from router.policies import POLICIES

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CONFIGS = sorted((ROOT / "config").rglob("*.yaml"))
PROMETHEUS = {"groups", "scrape_configs"}
"""Top-level keys of YAML that is Prometheus's, not ours."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tracked() -> list[Path]:
    """Every file of the repository."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [ROOT / name for name in listing.splitlines() if (ROOT / name).is_file()]


# YAML


def yaml_blocks() -> Iterator[Any]:
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in re.finditer(r"^```ya?ml\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, match.start()) + 1
            yield pytest.param(match[1], page.stem, id=f"{name_of(page)}:{line}")


def read_piece(block: str) -> dict[str, Any]:
    root = read(block, {}).root
    assert root is not None, block
    assert isinstance(root.data, dict), block
    return root.data


VARIANTS = [{"backend": "v1"}, {"backend": "v2"}, {"backend": "v3"}]
CANARY = {"type": "canary", "stable": "v1", "canary": "v2", "weight": "10%"}
WHOLE = {
    "ab": {"type": "ab", "variants": VARIANTS},
    "bandit": {"type": "bandit", "variants": VARIANTS},
}
"""Page -> the policy that its pieces belong to; elsewhere it is a canary."""


def completed(piece: dict[str, Any], page: str) -> dict[str, Any]:
    """A whole config around a piece of one: top-level keys, keys of a route, or keys of a policy.

    The backends that it names and does not have are added.
    """
    if not piece.keys() <= Config.model_fields.keys():
        if not piece.keys() <= Route.model_fields.keys():
            sticky = {"header": "x-user-id"}
            piece = {"policy": {**WHOLE.get(page, CANARY), "sticky": sticky, **piece}}
        if not piece.keys() & {"backend", "policy"}:
            piece = {"backend": "v1", **piece}
        piece = {"routes": [{"name": "route", **piece}]}
    keys = "backend|stable|canary|active|preview|from|to"
    named = re.findall(rf'"(?:{keys})": "([^"%]+)"', json.dumps(piece))
    backends = {name: {"endpoints": ["http://127.0.0.1:1"]} for name in ["v1", *named]}
    routes = piece.get("routes", [{"name": "route", "backend": "v1"}])
    return {**piece, "backends": backends | piece.get("backends", {}), "routes": routes}


def load(text: bytes) -> Loaded:
    return load_text(text, "page", {})


@pytest.mark.parametrize(("block", "page"), list(yaml_blocks()))
def test_every_yaml_block_of_the_documentation_is_right(block: str, page: str) -> None:
    piece = read_piece(block)
    if not piece.keys() & PROMETHEUS:
        load(json.dumps(completed(piece, page)).encode())


def test_the_config_on_the_first_page_is_a_whole_one() -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGES[0].read_text("utf-8"), re.M | re.S)
    load(block.encode())


def test_the_alerts_in_the_documentation_satisfy_promtool(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    rules = [p.values[0] for p in yaml_blocks() if "groups" in read_piece(p.values[0])]
    assert rules
    for number, block in enumerate(rules):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block)
        done = subprocess.run([promtool, "check", "rules", str(path)], capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_every_example_config_loads_without_a_warning(path: Path) -> None:
    assert load(path.read_bytes()).warnings == ()


@pytest.mark.parametrize("kind", [*POLICIES, "shadow"])
def test_every_policy_has_a_page_and_an_example_that_are_linked(kind: str) -> None:
    example, page = f"config/examples/{kind}.yaml", f"docs/policies/{kind}.md"
    assert (ROOT / example).is_file()
    assert example in (ROOT / page).read_text("utf-8")
    assert f"]({page})" in (ROOT / "README.md").read_text("utf-8")


# links and paths


def links(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    return {link for link in found if not re.match(r"[a-z]+:", link)}


def headings(page: Path) -> set[str]:
    """Anchors, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=name_of)
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in headings(target), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    for path in re.findall(r"`((?:config|docs|router|tests|benchmarks)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_that_a_page_shows_is_one(page: Path) -> None:
    text = re.sub(r"\\\n\s*", "", page.read_text("utf-8"))
    for line in re.findall(r"^\$? ?pointsman ([a-z][^#\n|>`]*)", text, re.MULTILINE):
        command = line.split()[0]
        usage = _parser().format_help()
        assert re.search(rf"^    {re.escape(command)} ", usage, re.MULTILINE), line


def test_no_file_knows_a_machine_of_its_authors() -> None:
    home = re.compile(rb"(?<![\w.])/(?:home|Users|root|work|mnt)/[A-Za-z]")
    found = [name_of(path) for path in tracked() if home.search(path.read_bytes())]
    assert found == []


def test_the_changelog_begins_with_the_present_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    first = re.search(r"^## (\S+)", text, re.MULTILINE)
    assert first is not None
    assert first[1] == __version__


def test_python_files_are_in_a_package_of_the_wheel() -> None:
    for path in tracked():
        if path.suffix == ".py" and path.is_relative_to(ROOT / "router"):
            assert (path.parent / "__init__.py").is_file(), name_of(path)
    assert (ROOT / "router" / "py.typed").is_file()


# the image


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of the Dockerfile, in order."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    pairs = (line.partition(" ")[::2] for line in joined.splitlines() if line.strip())
    return [(word.upper(), rest.strip()) for word, rest in pairs]


def of_last_stage(word: str) -> list[str]:
    found = instructions()
    start = max(n for n, (name, _) in enumerate(found) if name == "FROM")
    return [rest for name, rest in found[start:] if name == word]


def test_the_image_runs_the_router_without_a_shell_and_not_as_root() -> None:
    (entry,), (command,) = of_last_stage("ENTRYPOINT"), of_last_stage("CMD")
    words = [*json.loads(entry), *json.loads(command)]
    assert words[0] == "pointsman"
    options = _parser().parse_args(words[1:])
    assert str(options.file) == "/etc/pointsman/router.yaml"
    (user,) = of_last_stage("USER")
    assert user not in ("root", "0")
    assert of_last_stage("STOPSIGNAL") in ([], ["SIGTERM"])


def test_the_image_checks_its_health_by_a_command_that_exists() -> None:
    (check,) = of_last_stage("HEALTHCHECK")
    words = json.loads(check.partition("CMD ")[2])
    assert words[0] == "pointsman"
    assert _parser().parse_args(words[1:]).quiet


def test_everything_the_image_copies_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    copied = [rest.split() for word, rest in instructions() if word == "COPY"]
    sources = [s for words in copied if not words[0].startswith("--from") for s in words[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source.removeprefix('./').split('/')[0]}" in ignored


def test_the_image_has_the_config_and_the_state_where_the_router_looks() -> None:
    config = load((ROOT / "config" / "router.docker.yaml").read_bytes()).config
    assert any(
        words.split() == ["config/router.docker.yaml", "/etc/pointsman/router.yaml"]
        for words in of_last_stage("COPY")
    )
    (volume,) = of_last_stage("VOLUME")
    assert config.state == f"sqlite://{volume}/state.db"
    listener, admin = config.listen.rpartition(":")[2], config.admin.listen.rpartition(":")[2]
    assert of_last_stage("EXPOSE") == [f"{listener} {admin}"]
    assert config.logging.format == "json"
