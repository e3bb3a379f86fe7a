"""What to say of a name that nobody knows: the nearest right one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(name: str, known: Iterable[str], otherwise: str) -> str:
    """E.g. "max_token is unknown; did you mean max_tokens?"; `otherwise` where nothing is near."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"{name} is unknown; " + (f"did you mean {close[0]}?" if close else otherwise)
