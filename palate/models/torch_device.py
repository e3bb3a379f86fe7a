"""Where PyTorch computes."""

from __future__ import annotations

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
