import os
from pathlib import Path

import pytest

from services.reward.hardware import adds_bytes_exactly, usable_cores


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four cores of two hardware threads each, of which the process may use six threads on three cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4, 5}, raising=False)
    for number in range(8):
        file = tmp_path / f"devices/system/cpu/cpu{number}/topology/thread_siblings_list"
        file.parent.mkdir(parents=True)
        file.write_text(f"{number // 2 * 2}-{number // 2 * 2 + 1}\n")
    (tmp_path / "fs/cgroup").mkdir(parents=True)
    return tmp_path


def test_two_threads_of_a_core_are_one(machine: Path):
    assert usable_cores(machine) == 3


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 3), ("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1)]
)
def test_quota_of_a_container_counts(machine: Path, quota: str, cores: int):
    (machine / "fs/cgroup/cpu.max").write_text(quota + "\n")
    assert usable_cores(machine) == cores


def test_machine_that_says_nothing_of_its_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4}, raising=False)
    assert usable_cores(tmp_path) == 5


@pytest.mark.parametrize(
    ("machine", "flags", "exact"),
    [
        ("x86_64", "fpu avx2 avx512f avx512_vnni", True),
        ("AMD64", "fpu avx2 avx_vnni", True),
        ("x86_64", "fpu avx2 avx512f avx512_bf16", False),
        ("x86_64", "", False),
        ("aarch64", "", True),
    ],
)
def test_processors_that_cut_off_sums_of_bytes_are_known(machine: str, flags: str, exact: bool, tmp_path: Path):
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: spectre_v1\n" if flags else "processor\t: 0\n")
    assert adds_bytes_exactly(machine, file) == exact
    assert adds_bytes_exactly(machine, tmp_path / "missing") == (machine == "aarch64")
