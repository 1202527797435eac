"""YAML text to plain data, and where in the text each piece stands.

Owns what a document may be made of; knows nothing of what the keys mean. Strategy:

1. libyaml yields events; they are built into nodes here, so that depth and the growth by aliases
   are bounded before anything is built from them (a YAML bomb costs no more than its bytes).
2. A value is data as in JSON: mappings with text keys, lists, text, numbers, booleans, null.
   Tags, keys that are not text, and repeated keys are mistakes.
3. The environment is put into scalars once they are cut out of the text, so a variable can never
   add structure.
4. A mistake in one value marks that value as `BROKEN` and reading goes on; only what libyaml cannot
   read, or what is too deep or too large, ends it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import yaml

from router.config.problems import Path
from router.config.scalars import interpolate, resolve

DEPTH_MAX: Final = 32
"""Deepest nesting; the deepest a config needs is about 8."""
NODES_MAX: Final = 250_000
"""Most values in a document, those of an alias counted each time; 1,000 routes take 40,000."""

_UNPRINTABLE: Final = re.compile(
    r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# Without libyaml the same events come from Python, about ten times slower.
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Broken:
    """Stands for a value that could not be read; its mistake has been told."""


BROKEN: Final = Broken()


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the text, both counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something wrong at a place."""

    mark: Mark
    path: Path
    message: str
    hint: str = ""


@dataclass(slots=True)
class Node:
    """A value with its place. `size` counts it and everything below it."""

    mark: Mark
    data: Any = None
    size: int = 1
    children: dict[str | int, "Node"] = field(default_factory=dict)
    key_marks: dict[str | int, Mark] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Document:
    """`root` is None when the text could not be read to its end."""

    root: Node | None
    mistakes: tuple[Mistake, ...]


class _Stop(Exception):
    """Reading cannot go on; the mistake has been told."""


def read(text: str, env: Mapping[str, str]) -> Document:
    """Read one YAML document. Cost: linear in `text`, at most that of `NODES_MAX` values."""
    if match := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, match.start()) + 1
        mark = Mark(line, match.start() - (text.rfind("\n", 0, match.start()) + 1) + 1)
        return Document(
            None, (Mistake(mark, (), f"{_code(match[0])} is a character that YAML does not allow"),)
        )
    reader = _Reader(text, env)
    try:
        root = reader.document()
    except _Stop:
        root = None
    except yaml.MarkedYAMLError as error:
        root = None
        reader.mistakes.append(_syntax_mistake(error, text))
    return Document(root, tuple(reader.mistakes))


class _Reader:
    def __init__(self, text: str, env: Mapping[str, str]) -> None:
        self._loader = _LOADER(text)
        self._env = env
        self._anchors: dict[str, Node | None] = {}  # None while it is being built
        self._nodes = 0
        self.mistakes: list[Mistake] = []

    def document(self) -> Node:
        """The root.

        Raises:
            _Stop: there is none, or reading it cannot go on.
        """
        self._loader.get_event()  # stream start
        if self._loader.check_event(yaml.StreamEndEvent):
            self._stop(Mark(1, 1), (), "the file is empty")
        self._loader.get_event()  # document start
        root = self._node((), self._loader.get_event())
        self._loader.get_event()  # document end
        if not self._loader.check_event(yaml.StreamEndEvent):
            mark = _mark(self._loader.get_event())
            self._tell(mark, (), "a second document begins here", "a config is one document")
        return root

    def _node(self, path: Path, event: Any) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(path, event)
        mark = _mark(event)
        if len(path) > DEPTH_MAX:
            self._stop(mark, path[:4], f"nested deeper than {DEPTH_MAX} levels")
        self._count(path, mark, 1)
        anchor = event.anchor
        if anchor is not None:
            self._anchors[anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(path, mark, event)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(path, mark)
        else:
            node = self._mapping(path, mark)
        if event.tag is not None and event.tag != "!":
            hint = "remove it; text can be put in quotes"
            self._tell(mark, path, f"the tag {event.tag} is not allowed", hint)
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _alias(self, path: Path, event: Any) -> Node:
        mark = _mark(event)
        node = self._anchors.get(event.anchor)
        if node is None:
            is_open = event.anchor in self._anchors
            what = "contains itself" if is_open else "has no anchor before it"
            self._tell(mark, path, f"the alias *{event.anchor} {what}")
            return Node(mark, BROKEN)
        self._count(path, mark, node.size)
        return node

    def _count(self, path: Path, mark: Mark, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > NODES_MAX:
            self._stop(mark, path[:4], f"more than {NODES_MAX} values, counting those of aliases")

    def _scalar(self, path: Path, mark: Mark, event: Any) -> Node:
        try:
            text = interpolate(event.value, self._env)
        except ValueError as error:
            self._tell(mark, path, str(error))
            return Node(mark, BROKEN)
        if match := _CONTROL.search(text):
            self._tell(mark, path, f"contains the control character {_code(match[0])}")
            return Node(mark, BROKEN)
        return Node(mark, resolve(text) if event.implicit[0] else text)

    def _sequence(self, path: Path, mark: Mark) -> Node:
        data: list[Any] = []
        node = Node(mark, data)
        while not isinstance(event := self._loader.get_event(), yaml.SequenceEndEvent):
            child = self._node((*path, len(data)), event)
            node.children[len(data)] = child
            node.size += child.size
            data.append(child.data)
        return node

    def _mapping(self, path: Path, mark: Mark) -> Node:
        data: dict[str, Any] = {}
        node = Node(mark, data)
        while not isinstance(event := self._loader.get_event(), yaml.MappingEndEvent):
            key_mark = _mark(event)
            key = self._key(path, event)
            child_path = (*path, "?" if key is None else key)
            child = self._node(child_path, self._loader.get_event())
            node.size += child.size
            if key is None:
                continue
            if key in data:
                first = node.key_marks[key].line
                self._tell(
                    key_mark, child_path, f"the key {key!r} is given twice, first in line {first}"
                )
                continue
            node.children[key], node.key_marks[key] = child, key_mark
            data[key] = child.data
        return node

    def _key(self, path: Path, event: Any) -> str | None:
        """The key, or None when it is none and its mistake has been told."""
        mark = _mark(event)
        if not isinstance(event, yaml.ScalarEvent):
            self._node((*path, "?"), event)  # read past it
            self._tell(mark, path, "a key must be text")
            return None
        if event.value == "<<" and event.implicit[0]:
            hint = "use an alias for a whole value"
            self._tell(mark, path, "merge keys (<<) are not part of YAML 1.2", hint)
            return None
        if event.implicit[0] and not isinstance(resolve(event.value), str):
            self._tell(mark, path, f"the key {event.value} is not text", "put it in quotes")
            return None
        return str(event.value)

    def _tell(self, mark: Mark, path: Path, message: str, hint: str = "") -> None:
        self.mistakes.append(Mistake(mark, path, message, hint))

    def _stop(self, mark: Mark, path: Path, message: str) -> NoReturn:
        self._tell(mark, path, message)
        raise _Stop


def _mark(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)


def _code(char: str) -> str:
    return f"U+{ord(char):04X}"


def _syntax_mistake(error: yaml.MarkedYAMLError, text: str) -> Mistake:
    place = error.problem_mark or error.context_mark
    mark = Mark(place.line + 1, place.column + 1) if place else Mark(1, 1)
    context = f", {error.context}" if error.context else ""
    lines = text.split("\n")
    line = lines[mark.line - 1] if mark.line <= len(lines) else ""
    hint = "put values with ${...} inside { } or [ ] in quotes" if "${" in line else ""
    return Mistake(mark, (), f"not YAML: {error.problem}{context}", hint)
