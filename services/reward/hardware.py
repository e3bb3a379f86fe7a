"""What an engine finds of the processor: how many cores it may use, and which products are exact."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

_X86 = ("x86_64", "amd64", "i386", "i686")


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
