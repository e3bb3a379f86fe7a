"""Which GPU `--device` means, whatever runs the forward pass."""

from __future__ import annotations

import re

from palate.models.folder import FolderError

_GPU = re.compile(r"cuda(?::(\d+))?")


def gpu_number(wanted: str, *, is_there: bool, otherwise: str) -> int | None:
    """Which GPU `--device` means; None is the CPU.

    Args:
        wanted: "cpu", "cuda", "cuda:1" etc., or "auto", which is the first GPU where there is one.
        is_there: Whether the engine can use a GPU here.
        otherwise: Why it cannot, and what to do.

    Raises:
        FolderError: It is no name of a device, or there is no GPU.
    """
    if wanted == "cpu" or (wanted == "auto" and not is_there):
        return None
    match = _GPU.fullmatch("cuda" if wanted == "auto" else wanted)
    if match is None:
        raise FolderError(f"--device {wanted[:40]!r} is no device; it can be auto, cpu, cuda, or cuda:1 and so on")
    if not is_there:
        raise FolderError(f"--device {wanted}, but {otherwise}")
    return int(match[1] or 0)
