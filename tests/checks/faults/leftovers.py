"""What is left of what was started: processes, temporary files and mounts, of children's children too.

All of it is known by one temporary folder of its own: TMPDIR in the environment says where files go, and /proc shows
the environment that a process was started with, also of one whose parent has ended.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SETTLING_SECONDS = 10.0
"""How long a child's child may take to see that its parent has ended, and to end too."""


@contextmanager
def own_temporary_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder for this process and for all that it starts in the context, as other people's come and go."""
    former, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix=prefix) as own:
        tempfile.tempdir = os.environ["TMPDIR"] = own
        try:
            yield Path(own)
        finally:
            tempfile.tempdir = former
            del os.environ["TMPDIR"]
            if variable is not None:
                os.environ["TMPDIR"] = variable


def present() -> frozenset[str]:
    """Processes of the present temporary folder, files in it, and mounts."""
    own = tempfile.gettempdir()
    mounts = (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines())
    files = (f"file {path}" for path in Path(own).rglob("*"))
    return frozenset([*_processes(own), *files, *(f"mount {place}" for place in mounts if place.startswith(own))])


def left_since(before: frozenset[str]) -> frozenset[str]:
    """What is present now, was not before, and does not go within some seconds."""
    end = time.monotonic() + _SETTLING_SECONDS
    while (left := present() - before) and time.monotonic() < end:
        time.sleep(0.1)
    return left


def _processes(own: str) -> Iterator[str]:
    """Our children, ended ones that nobody waited for too, and whoever was started with our temporary folder."""
    mine, mark = os.getpid(), f"TMPDIR={own}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            marked = mark in (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended, or is another user's
        if int(folder.name) != mine and (parent == mine or marked):
            yield f"process {folder.name} {command[:80]}"
