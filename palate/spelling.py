"""What to say of a name that nobody knows, the nearest right one; and of a value of the wrong kind, its kind."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

_KINDS: Mapping[type, str] = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
}


def unknown(name: str, known: Iterable[str], otherwise: str) -> str:
    """E.g. "max_token is unknown; did you mean max_tokens?"; `otherwise` where nothing is near."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"{name} is unknown; " + (f"did you mean {close[0]}?" if close else otherwise)


def kind_of(value: object) -> str:
    """What a value of a JSON document, or of a table, is, in words."""
    return _KINDS.get(type(value), "of another kind")
