"""Reads YAML in which nothing is said twice: of two values for one key, PyYAML keeps the last without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

_MERGE = "tag:yaml.org,2002:merge"


class KeyGivenTwice(yaml.YAMLError):
    """A mapping has a key twice; the message names it and its second line."""


class UnreadableValue(yaml.YAMLError):
    """A value looks like a number, a date or the like, and is none, or is nested too deeply."""


_OF_VALUES = (ValueError, ArithmeticError, LookupError, AttributeError, TypeError, RecursionError)
"""What PyYAML lets out of such values, beside errors of its own."""

_MOST_CHARACTERS = 300


def read_yaml(file: Path) -> Any:
    """What the file holds, as plain values.

    Raises:
        KeyGivenTwice: A key stands twice in one mapping.
        yaml.YAMLError: It is no YAML.
        UnicodeDecodeError: It is no UTF-8.
        OSError: It cannot be read.
    """
    text = file.read_text(encoding="utf-8")
    try:
        return yaml.load(text, _OnceLoader)
    except _OF_VALUES as error:
        raise UnreadableValue(f"a value cannot be read ({type(error).__name__}: {error})"[:_MOST_CHARACTERS]) from error


class _OnceLoader(yaml.SafeLoader):
    """A safe loader that refuses keys given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            if (key.tag, key.value) in seen:
                raise KeyGivenTwice(f"{key.value} is given twice, again in line {key.start_mark.line + 1}; keep one")
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)
