"""Where a bug is, without what it was about: messages of exceptions may quote what users sent."""

from __future__ import annotations

import traceback


def whereabouts(error: BaseException) -> str:
    """The lines of code that led to `error` and to what caused it, with the types of both and no message."""
    parts, open_errors = [], [error]
    while open_errors:
        shown = open_errors.pop()
        parts += [*traceback.format_tb(shown.__traceback__), f"{type(shown).__name__}\n"]
        cause = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)
        if cause is not None:
            parts.append("caused by\n")
            open_errors.append(cause)
    return "".join(parts).rstrip()
