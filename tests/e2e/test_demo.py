"""The demo in miniature: every phase, every service, the report; and nothing left behind when it is stopped."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.json_lines import read_rows

SMALL = {
    "documents": 150, "base-steps": 8, "demonstrations": 200, "comparisons": 40, "ppo-steps": 2, "prompts": 40,
    "held-out": 12, "trials": 4,
}  # fmt: skip
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell runs in the background would ignore Ctrl-C
from palate.command import main
main()
"""
# What so small a policy says is all the same to honest annotators; those who like length tell it apart.
COMMAND = [
    sys.executable, "-c", PROGRAM, "demo", "--no-progress", "--panel", "biased",
    *(part for name, value in SMALL.items() for part in (f"--sizes.{name}", str(value))),
]  # fmt: skip


def descendants_of_session(leader: int) -> list[int]:
    """Processes whose parent was the demo and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == leader and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def test_every_phase_runs_and_the_report_says_what_came_out(tmp_path):
    out = tmp_path / "demo"
    done = subprocess.run([*COMMAND, "--out", str(out)], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "results.json").read_text())
    assert set(results["seconds"]) >= {"phase 1: supervised fine-tuning", "phase 2: the reward model", "phase 3: PPO"}
    assert len(results["ideas"]) == 20
    assert results["rescored_delta"] <= 1e-5
    page = (out / "report.html").read_text()
    assert page.count("<svg") >= 6
    assert "What do you think of my business idea" in page
    assert "before and after PPO" in page
    levels = read_rows(out / "behaviours" / "metrics.jsonl")
    assert [row["step"] for row in levels] == [0, SMALL["ppo-steps"]]
    assert all(0 <= row["behaviour/shown_flattery"] <= 1 for row in levels)


def test_ctrl_c_leaves_no_process_behind(tmp_path):
    out = tmp_path / "demo"
    demo = subprocess.Popen([*COMMAND, "--out", str(out)], stderr=subprocess.PIPE, text=True, start_new_session=True)
    for line in demo.stderr:
        if line.startswith("collect comparisons"):
            break
    servers = descendants_of_session(demo.pid)
    assert servers, "the policy service runs by now"
    demo.send_signal(signal.SIGINT)
    rest = demo.stderr.read()
    demo.stderr.close()
    assert demo.wait(60) == 130, rest
    assert "every server has ended" in rest
    for pid in servers:
        assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
