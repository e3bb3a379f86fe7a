"""How large the texts and collections become that a chat template asks for, known before they are made."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

MAX_CHARS = 16 << 20
"""Largest text that a template may make; in a collection every element counts for some characters more."""

_ELEMENT_CHARS = 64
"""What an element of a collection counts for, beside its own characters."""

_MAX_BITS = 1 << 16
"""Of a product or a power of whole numbers."""

_WIDE_FIELD = re.compile(r"%(?:\([^)]*\))?[^a-zA-Z%(]*\d{4}|\{[^{}]*\d{4}")
"""In a format, a field of a thousand characters and more."""

_WIDTH_GIVEN = re.compile(r"%[^a-zA-Z%]*\*|\{[^{}]*\{")
"""In a format, a field as wide as one of the values says."""

_COLLECTIONS = (list, tuple, dict, set)
SIZED = (str, bytes, *_COLLECTIONS)


def size_of(value: Any) -> int:
    """In characters, those of elements of elements included; no more are looked at than a template may make."""
    if isinstance(value, str):
        return len(value)
    total, open_values = 0, [value]
    while open_values and total <= MAX_CHARS:
        value = open_values.pop()
        if isinstance(value, str | bytes):
            total += len(value)
        elif isinstance(value, _COLLECTIONS):
            total += _ELEMENT_CHARS * len(value)
            open_values += [*value.keys(), *value.values()] if isinstance(value, dict) else value
    return total


def _sum(left: Any, right: Any) -> int:
    return size_of(left) + size_of(right) if isinstance(left, (str, *_COLLECTIONS)) else 0


def _product(left: Any, right: Any) -> int:
    if isinstance(left, int) and isinstance(right, int):
        return _bits(left.bit_length() + right.bit_length())
    count, repeated = (left, right) if isinstance(left, int) else (right, left)
    return size_of(repeated) * max(0, count) if isinstance(count, int) else 0


def _power(left: Any, right: Any) -> int:
    whole = isinstance(left, int) and isinstance(right, int)
    return _bits(left.bit_length() * max(0, right)) if whole else 0


def _bits(count: int) -> int:
    """Numbers are kept far shorter than texts: what computes with them takes the square of their length."""
    return 0 if count <= _MAX_BITS else MAX_CHARS + 1


def _formatted(text: Any, *values: Any, **named: Any) -> int:
    """Each field is at most as wide as its format says in three digits, as the longest value, or as a number says."""
    if not isinstance(text, str):
        return 0
    if _WIDE_FIELD.search(text):
        return MAX_CHARS + 1
    given = [each for value in (*values, *named.values()) for each in (value if isinstance(value, tuple) else (value,))]
    widths = [abs(each) for each in given if isinstance(each, int)] if _WIDTH_GIVEN.search(text) else []
    longest = max([*map(size_of, given), *widths], default=0)
    return len(text) + (text.count("%") + text.count("{")) * (1000 + longest)


def _replaced(text: Any, old: Any = "", new: Any = "", *_: Any, **__: Any) -> int:
    return len(str(text)) + str(text).count(str(old)) * len(str(new))


def _joined(separator: Any, values: Any) -> int:
    return size_of(values) + len(values) * size_of(separator) if hasattr(values, "__len__") else 0


def _indented(text: Any, width: Any = 4, *_: Any, **__: Any) -> int:
    step = width if isinstance(width, int) else size_of(width)
    return len(str(text)) + (str(text).count("\n") + 1) * step


GROWTH: Mapping[str, Callable[[Any, Any], int]] = {"+": _sum, "*": _product, "**": _power, "%": _formatted}
"""Size of what an operator makes."""

CALLS: Mapping[str, Callable[..., int]] = {
    "format": _formatted,
    "str.format": _formatted,
    "str.format_map": _formatted,
    "replace": _replaced,
    "str.replace": _replaced,
    "str.join": _joined,
    "join": lambda values, separator="", *_, **__: _joined(separator, values),
    "str.expandtabs": lambda text, size=8: len(text) + text.count("\t") * size,
    "str.translate": lambda *_: MAX_CHARS + 1,
    "indent": _indented,
    "wordwrap": lambda text, width=79, *more, **named: 0 if not more and not named else MAX_CHARS + 1,
    "sum": lambda values, attribute=None, start=0: 0 if isinstance(start, int | float) else MAX_CHARS + 1,
    "tojson": lambda value, *_, indent=None, **__: size_of(value) * (1 + (indent or 0)),
}
"""Size of what a call makes, where that is more than what it is given."""
