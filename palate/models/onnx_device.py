"""Where ONNX Runtime computes."""

from __future__ import annotations

from palate.models.device import gpu_number
from palate.models.folder import FolderError
from palate.models.onnx_runtime import onnxruntime


def onnx_gpu(wanted: str, precision: str) -> int | None:
    """Which GPU `--device` means to ONNX Runtime; None is the CPU.

    Args:
        wanted: As for `gpu_number`.
        precision: Of the model.onnx; int8 is for CPUs.

    Raises:
        FolderError: It is no name of a device, or this model.onnx has no GPU here.
    """
    is_there = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if precision == "int8" and wanted == "auto":
        return None
    otherwise = "the installed onnxruntime runs on CPUs alone; install 'palate[gpu]' instead of 'palate[cpu]'"
    number = gpu_number(wanted, is_there=is_there, otherwise=otherwise)
    if precision == "int8" and number is not None:
        raise FolderError(
            f"--device {wanted}, but an int8 export is for CPUs; export with --precision float32 for GPUs"
        )
    return number
