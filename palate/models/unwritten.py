"""What went wrong on a disk where a library that writes weights or tokenizers tells it in a way of its own."""

from __future__ import annotations

import os
import re

from safetensors import SafetensorError

_NUMBER = re.compile(r"\(os error (\d+)\)")
"""How Rust ends the words of the operating system."""

_TORCH_WRITER = ("inline_container.cc", "PytorchStreamWriter")


def os_error_of(error: Exception) -> OSError | None:
    """What the operating system said, where `error` is that or tells of it; None where it is something else.

    safetensors and tokenizers raise exceptions that are no OSError; torch's writer does not even say the cause.
    """
    if isinstance(error, OSError):
        return error
    if isinstance(error, SafetensorError) or type(error) is Exception:
        found = _NUMBER.search(str(error))
        return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None
    if isinstance(error, RuntimeError) and any(name in str(error) for name in _TORCH_WRITER):
        return OSError("not all of it could be written; look whether the disk is full, or choose another --out")
    return None
