"""What cannot begin ends with the same exit code in every command."""

import subprocess
import sys

import pytest

from palate.exit_codes import STOPPED

NOWHERE = ("--target", "127.0.0.1:1")


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-command",),
        ("audit", *NOWHERE, "--wait", "0", "--out", "audit"),
        ("collect", "--policy", "127.0.0.1:1", "--prompts", "absent", "--out", "c.jsonl"),
        ("ensemble", "absent", "absent", "--out", "out"),
        ("export", "--model", "absent", "--out", "out"),
        ("models", "list", *NOWHERE),
        ("ping", *NOWHERE),
        ("rescore", "absent", *NOWHERE, "--wait", "0"),
        ("score", "absent", "out.jsonl", *NOWHERE),
        ("train", "reward", "--modle", "absent"),
        ("verify", "--model", "absent"),
    ],
    ids=" ".join,
)
def test_what_cannot_begin_says_why_and_ends_with_2(tmp_path, arguments):
    command = [sys.executable, "-c", "from palate.command import main; main()", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == STOPPED, done.stderr
    assert done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_training_without_its_files_is_not_started_again(tmp_path):
    flags = ("train", "reward", "--model", "absent", "--data", "absent", "--out", "out")
    command = [sys.executable, "-c", "from palate.command import main; main()", *flags]
    assert subprocess.run(command, capture_output=True, timeout=300, cwd=tmp_path, check=False).returncode == STOPPED
