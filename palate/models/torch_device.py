"""Where PyTorch computes, and in which number formats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from palate.models.device import gpu_number
from palate.models.folder import FolderError


def torch_device(wanted: str) -> torch.device:
    """What `--device` means to PyTorch.

    Args:
        wanted: As for `gpu_number`.

    Raises:
        FolderError: It is no name of a device, or there is no such GPU.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = gpu_number(wanted, is_there=gpus > 0, otherwise="PyTorch sees no GPU here; use --device cpu")
    if number is None:
        return torch.device("cpu")
    if number >= gpus:
        raise FolderError(f"--device {wanted}, but PyTorch sees {gpus} GPU here, counted from 0")
    return torch.device("cuda", number)


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 itself."""
    if device.type == "cpu":
        return computes_bfloat16(getattr(torch.cpu, "get_capabilities", dict)())  # an old PyTorch cannot say
    return torch.cuda.get_device_capability(device) >= (8, 0)


def computes_bfloat16(capabilities: Mapping[str, Any]) -> bool:
    """Whether a processor does, by what `torch.cpu.get_capabilities` says of it."""
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
