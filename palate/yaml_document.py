"""Reads YAML in which nothing is said twice: of two values for one key, PyYAML keeps the last without a word."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

_MERGE = "tag:yaml.org,2002:merge"


class KeyGivenTwice(yaml.YAMLError):
    """A mapping has a key twice; the message names it and its second line.

    Attributes:
        line: The second one, from 1 on.
    """

    def __init__(self, key: str, line: int) -> None:
        super().__init__(f"{key} is given twice, again in line {line}; keep one")
        self.line = line


class UnreadableValue(yaml.YAMLError):
    """A value looks like a number, a date or the like, and is none, or is nested too deeply."""


class TooMuch(yaml.YAMLError):
    """It is too long, too deep, or its aliases repeat too much; the message says how much may be."""


_OF_VALUES = (ValueError, ArithmeticError, LookupError, AttributeError, TypeError, RecursionError)
"""What PyYAML lets out of such values, beside errors of its own."""

_MOST_CHARACTERS = 300

_MOST_BYTES = 1 << 20
"""Thousands of identities; PyYAML takes three seconds for so many, thirteen where they are commas and brackets."""

_DEEPEST = 64
"""Brackets in brackets: at every token PyYAML looks at each of those that are open."""

_MOST_VALUES = 100_000
"""What aliases repeat counts each time: nine lists of nine aliases each stand for hundreds of millions of values, and
whoever prints one of them, as messages of errors do, prints them all."""


def read_yaml(file: Path) -> Any:
    """What the file holds, as plain values.

    Raises:
        KeyGivenTwice: A key stands twice in one mapping.
        TooMuch: It is longer, deeper, or stands for more values than any configuration.
        yaml.YAMLError: It is no YAML.
        UnicodeDecodeError: It is no UTF-8.
        OSError: It cannot be read.
    """
    with file.open("rb") as stream:
        data = stream.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise TooMuch(f"it is longer than {_MOST_BYTES} bytes")
    text = data.decode("utf-8")
    try:
        return _OnceLoader(text, str(file)).get_single_data()
    except _OF_VALUES as error:
        raise UnreadableValue(f"a value cannot be read ({type(error).__name__}: {error})"[:_MOST_CHARACTERS]) from error


class _OnceLoader(yaml.SafeLoader):
    """A safe loader that refuses keys given twice, and what would cost too much; its errors name the file."""

    def __init__(self, text: str, file: str) -> None:
        self._file = file
        super().__init__(text)

    def check_printable(self, data: str) -> None:
        """PyYAML calls the text "<unicode string>", and then first of all looks at its characters here."""
        self.name = self._file
        super().check_printable(data)

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        if self.flow_level == _DEEPEST:
            raise TooMuch(f"it has more than {_DEEPEST} brackets in brackets; write it flatter")
        super().fetch_flow_collection_start(token)

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _values(node, {}) > _MOST_VALUES:
            raise TooMuch(f"it stands for more than {_MOST_VALUES} values, as often as aliases repeat them")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            if (key.tag, key.value) in seen:
                raise KeyGivenTwice(str(key.value), key.start_mark.line + 1)
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for, too many where it contains itself; `known` are those of nodes, by `id`."""
    if id(node) not in known:
        known[id(node)] = _MOST_VALUES + 1
        known[id(node)] = min(1 + sum(_values(child, known) for child in _children(node)), _MOST_VALUES + 1)
    return known[id(node)]


def _children(node: yaml.Node) -> Iterable[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return chain.from_iterable(node.value)
    return node.value if isinstance(node, yaml.SequenceNode) else ()
