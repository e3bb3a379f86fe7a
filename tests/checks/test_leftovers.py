"""Whether the fault suite sees what a case leaves behind."""

import os
import signal
import subprocess
import tempfile
from pathlib import Path

from tests.checks.faults import leftovers
from tests.checks.faults.case import Case, play


def _orphan() -> int:
    """A process whose parent has ended."""
    command = "sleep 600 >/dev/null 2>&1 & echo $!"
    return int(subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, check=True).stdout)


def _left(left):
    """What `play` says of a case that does this."""

    async def case(folder, report):
        left(folder)

    with leftovers.own_temporary_folder("palate-test-"):
        return play(Case("leaves", "nothing is left", case)).broken


def test_an_orphan_is_seen(monkeypatch):
    monkeypatch.setattr(leftovers, "_SETTLING_SECONDS", 0.2)
    orphans = []
    try:
        (broken,) = _left(lambda folder: orphans.append(_orphan()))
    finally:
        for orphan in orphans:
            os.kill(orphan, signal.SIGKILL)
    assert f"process {orphans[0]} sleep 600" in broken


def test_a_child_is_seen(monkeypatch):
    monkeypatch.setattr(leftovers, "_SETTLING_SECONDS", 0.2)
    children = []
    try:
        (broken,) = _left(
            lambda folder: children.append(subprocess.Popen(["sleep", "600"], env={"PATH": "/bin:/usr/bin"}))
        )
    finally:
        for child in children:
            child.kill()
            child.wait()
    assert f"process {children[0].pid} sleep 600" in broken


def test_a_file_of_a_child_is_seen(monkeypatch):
    monkeypatch.setattr(leftovers, "_SETTLING_SECONDS", 0.2)
    (broken,) = _left(lambda folder: subprocess.run(["mktemp", "-t", "forgotten.XXXXXX"], check=True))
    assert "/forgotten." in broken


def test_what_goes_is_not_left():
    def settled(folder: Path) -> None:
        (folder / "log").write_text("a file of the case's own folder")
        subprocess.run(["sh", "-c", "sleep 0.5 >/dev/null 2>&1 &"], check=True)

    assert _left(settled) == []


def test_the_temporary_folder_is_given_back():
    before = tempfile.gettempdir(), os.environ.get("TMPDIR")
    with leftovers.own_temporary_folder("palate-test-") as own:
        assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(own)
    assert (tempfile.gettempdir(), os.environ.get("TMPDIR")) == before
