"""What of the machine an engine uses: how many processor cores, and the processor or a GPU."""

from __future__ import annotations

import math
import os
import platform
import re
from pathlib import Path

from palate.models.folder import FolderError

_GPU = re.compile(r"cuda(?::(\d+))?")
_X86 = ("x86_64", "amd64", "i386", "i686")


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


def adds_bytes_exactly(machine: str = platform.machine(), processors: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether ONNX Runtime's products of unsigned with signed bytes are exact here.

    On x86 without VNNI its kernels add two of them in 16 bits and cut off what is larger. Where nothing says which
    instructions there are, they count as missing.
    """
    if machine.lower() not in _X86:
        return True
    try:
        lines = processors.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    return not flags.isdisjoint({"avx512_vnni", "avx_vnni"})


def usable_cores(system: Path = Path("/sys")) -> int:
    """How many cores this process may use: those of its affinity, each once, and no more than the container's quota.

    Libraries count the machine's cores, of which a container may have a small share; threads beyond that wait for each
    other.
    """
    quota = _quota(system / "fs/cgroup/cpu.max")
    return max(1, min(_cores(system), math.ceil(quota)) if quota else _cores(system))


def _cores(system: Path) -> int:
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    numbers = os.sched_getaffinity(0)
    try:  # two hardware threads of one core name the same siblings
        topology = "devices/system/cpu/cpu{}/topology/thread_siblings_list"
        return len({(system / topology.format(number)).read_text() for number in numbers})
    except OSError:
        return len(numbers)


def _quota(file: Path) -> float | None:
    """Processors' worth of time that the control group may use; None where nothing limits it."""
    try:
        share, period = file.read_text().split()
    except (OSError, ValueError):
        return None
    return None if share == "max" else int(share) / int(period)
