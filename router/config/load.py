"""From bytes to a Loaded config, or to every mistake in them.

Strategy: read the YAML (`document.py`), validate it (`model.py`), check names (`crosscheck.py`);
then put what all three found in the file's order, with its place. One mistake is told once: what
follows from a value that could not be read is left out.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Final

from pydantic import ValidationError

from router.config.crosscheck import crosscheck
from router.config.document import BROKEN, Mark, Mistake, Node, read
from router.config.model import Config
from router.config.problems import ConfigError, Finding, Path, Problem, render_path
from router.config.translate import translate

FILE_MAX_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid config with where it came from.

    `document` is the YAML as plain data after interpolation: it is JSON-able, and validating it
    again gives an equal Config. It holds secrets. `digest` is the SHA-256 (hex) of the file's
    bytes. `warnings` are what is allowed but likely not meant. `pem`: path -> content of every PEM
    file that the config names, when they were looked at.
    """

    config: Config
    document: dict[str, Any]
    digest: str
    warnings: tuple[Problem, ...]
    source: str
    pem: Mapping[str, str] = field(default_factory=dict)


Look = Callable[[Config], tuple[Mapping[str, str], Iterable[Finding]]]
"""Reads the PEM files that a config names: their contents by path, and what is wrong with them."""


def load_file(path: FilePath, env: Mapping[str, str], look: Look | None = None) -> Loaded:
    """Load the file at `path`; `env` is what `${NAME}` refers to.

    `look` (see `router.tls.files`) reads the files that the config names; without it nobody does.

    Raises:
        ConfigError: the file cannot be read, or `load_text` refuses what is in it.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError([Problem(str(path), 0, 0, "", f"cannot be read: {reason}")]) from error
    except ValueError as error:  # a NUL in the path
        raise ConfigError([Problem(str(path), 0, 0, "", f"cannot be read: {error}")]) from error
    return load_text(text, str(path), env, look)


def load_text(text: bytes, source: str, env: Mapping[str, str], look: Look | None = None) -> Loaded:
    """Load the YAML in `text`; `source` names it in messages.

    Raises:
        ConfigError: it is longer than `FILE_MAX_BYTES`, not UTF-8, not YAML, or not a config.
    """
    if len(text) > FILE_MAX_BYTES:
        message = f"is larger than {FILE_MAX_BYTES} bytes"
        raise ConfigError([Problem(source, 0, 0, "", message)])
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        column = error.start - text.rfind(b"\n", 0, error.start)
        raise ConfigError([Problem(source, line, column, "", "is not UTF-8")]) from error
    document = read(decoded, env)
    root = document.root
    if root is None:
        raise ConfigError(_from_mistake(source, one) for one in document.mistakes)
    config, findings = _validate(root.data)
    pem: Mapping[str, str] = {}
    if config is not None and look is not None:
        pem, found = look(config)
        findings += found
    problems = [_from_mistake(source, one) for one in document.mistakes]
    problems += (_from_finding(source, root, one) for one in findings if not _is_known(root, one))
    problems = _in_order(problems)
    errors = [problem for problem in problems if not problem.is_warning]
    if errors or config is None:
        raise ConfigError(errors)
    digest = hashlib.sha256(text).hexdigest()
    warnings = tuple(problem for problem in problems if problem.is_warning)
    return Loaded(config, root.data, digest, warnings, source, pem)


def _validate(document: Any) -> tuple[Config | None, list[Finding]]:
    findings = crosscheck(document)
    try:
        return Config.model_validate(document), findings
    except ValidationError as error:
        return None, [*translate(error, document), *findings]


def _is_known(root: Node, finding: Finding) -> bool:
    """Whether the finding is about a value whose own mistake has been told."""
    node = _node(root, finding.path)
    return node is not None and node.data is BROKEN and not finding.at_key


def _node(root: Node, path: Path) -> Node | None:
    node: Node | None = root
    for step in path:
        node = node.children.get(step) if node is not None else None
    return node


def _mark(root: Node, path: Path, at_key: bool) -> Mark:
    """Where the value at `path` stands, or the nearest thing above it."""
    mark, node = root.mark, root
    for i, step in enumerate(path):
        if step not in node.children:
            break
        is_last = i == len(path) - 1
        key_mark = node.key_marks.get(step)
        node = node.children[step]
        mark = key_mark if at_key and is_last and key_mark is not None else node.mark
    return mark


def _from_mistake(source: str, mistake: Mistake) -> Problem:
    mark, path = mistake.mark, render_path(mistake.path)
    return Problem(source, mark.line, mark.column, path, mistake.message, mistake.hint)


def _from_finding(source: str, root: Node, finding: Finding) -> Problem:
    mark, path = _mark(root, finding.path, finding.at_key), render_path(finding.path)
    return Problem(
        source, mark.line, mark.column, path, finding.message, finding.hint, finding.is_warning
    )


def _in_order(problems: Iterable[Problem]) -> list[Problem]:
    return sorted(dict.fromkeys(problems), key=lambda problem: (problem.line, problem.column))
