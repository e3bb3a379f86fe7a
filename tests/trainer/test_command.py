import errno
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from palate.exit_codes import INTERRUPTED, NOT_GOOD, STOPPED
from palate.models.folder import FolderError
from tests.collecting import COMMAND
from tests.tiny_models import CHAT_TEMPLATE, make_tiny_policy
from trainer import collect_command, command
from trainer.data.lines import DataError, write_rows
from trainer.ppo.errors import CheckpointRefused, NotStrict, RolloutsFailed, UnusableModel
from trainer.run_folder import RunFolderBusy


def run(app, *arguments):
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("phase", ["pretrain", "sft", "reward", "ppo"])
def test_help_lists_the_flags_and_imports_no_torch(phase):
    program = (
        "import sys\nfrom trainer.command import app\n"
        f"try: app(['{phase}', '--help'], standalone_mode=False)\nexcept SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "--out Path" in done.stdout
    assert "--config FILE" in done.stdout


def test_a_phase_runs_from_a_file_and_flags(tmp_path):
    make_tiny_policy(tmp_path / "base", 0, chat=True)
    write_rows(tmp_path / "d.jsonl", [{"prompt": f"the {x}?", "completion": "a friend."} for x in ("dog", "girl")] * 4)
    values = {"model": str(tmp_path / "base"), "data": str(tmp_path / "d.jsonl"), "max_steps": 2, "progress": False}
    (tmp_path / "sft.yaml").write_text(json.dumps(values))  # JSON is YAML
    done = run(command.app, "sft", "--config", str(tmp_path / "sft.yaml"), "--out", str(tmp_path / "run"), "--seed=3")
    assert done.exit_code == 0, done.output
    assert "2 steps, loss" in done.output
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["seed"] == 3
    assert (tmp_path / "run" / "model" / "palate.json").is_file()


def test_a_mistyped_flag_is_refused_with_the_right_one():
    done = run(command.app, "reward", "--held-ot", "x")
    assert done.exit_code == STOPPED
    assert "did you mean --held-out?" in done.stderr


def test_ctrl_c_says_how_to_go_on(tmp_path):
    """It comes while the comparisons are read, from a pipe that has none yet."""
    os.mkfifo(tmp_path / "pairs.jsonl")
    flags = ["reward", "--model", "absent", "--data", str(tmp_path / "pairs.jsonl"), "--out", str(tmp_path / "out")]
    train = [*COMMAND[:-1], "train", *flags]
    with subprocess.Popen(train, stderr=subprocess.PIPE, text=True) as process, (tmp_path / "pairs.jsonl").open("w"):
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    assert process.returncode == INTERRUPTED
    assert told.startswith("palate train reward: stopped; the same command with --resume goes on from the last")


def test_a_base_model_comes_of_text_alone(tmp_path):
    write_rows(tmp_path / "d.jsonl", [{"text": f"Once there was a {size} dog."} for size in ("small", "big", "old")])
    shape = ["--vocabulary", "300", "--hidden-size", "16", "--layers", "1", "--heads", "2", "--max-steps", "2"]
    places = ["--documents", str(tmp_path / "d.jsonl"), "--out", str(tmp_path / "base")]
    done = run(command.app, "pretrain", *places, *shape, "--no-progress")
    assert done.exit_code == 0, done.output
    assert "2 steps" in done.output
    assert (tmp_path / "base" / "model" / "palate.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["sft", "--model", "absent", "--data", "{data}", "--out", "{out}"], "absent is not a folder"),
        (
            ["sft", "--model", "{base}", "--data", "absent", "--out", "{out}"],
            "absent cannot be read: No such file or directory\n",
        ),
        (
            ["sft", "--model", "{base}", "--data", "{data}", "--out", "{data}"],
            "d.jsonl is a file; give a folder as --out",
        ),
        (["reward", "--model", "absent", "--data", "{good}", "--out", "{out}"], "absent is not a folder"),
        (["reward", "--model", "{base}", "--data", "{data}", "--out", "{out}"], "d.jsonl:1: 'a', 'b', 'label' missing"),
        (
            ["reward", "--model", "{base}", "--data", "{pairs}", "--out", "{out}"],
            "pairs.jsonl:2: 'chosen' missing (the row has 'prompt', 'rejected'); a comparison is",
        ),
        (["ppo", "--policy", "absent", "--prompts", "{data}", "--out", "{out}"], "absent is not a folder"),
        (["pretrain", "--documents", "{data}", "--out", "{out}"], "d.jsonl:1: 'text' must be a text; it is missing"),
    ],
)
def test_what_one_can_mend_is_said_in_a_line_without_a_traceback(tmp_path, arguments, complaint):
    write_rows(tmp_path / "d.jsonl", [{"prompt": "x", "completion": "y"}])
    pairs = [{"prompt": "x", "chosen": "y", "rejected": "z"}, {"prompt": "x", "rejected": "z"}]
    write_rows(tmp_path / "pairs.jsonl", pairs)
    write_rows(tmp_path / "good.jsonl", [{"prompt": x, "chosen": "y", "rejected": "z"} for x in ("a", "b", "c")])
    places = {
        "good": tmp_path / "good.jsonl",
        "data": tmp_path / "d.jsonl",
        "pairs": tmp_path / "pairs.jsonl",
        "out": tmp_path / "out",
    }
    places["base"] = make_tiny_policy(tmp_path / "base", 0)
    done = run(command.app, *(argument.format(**places) for argument in arguments))
    assert done.exit_code == STOPPED
    assert complaint in done.stderr
    assert done.stderr.startswith(f"palate train {arguments[0]}: ")
    assert "Traceback" not in done.stderr
    assert not places["out"].exists()


@pytest.mark.parametrize(
    ("error", "cause", "code"),
    [
        (DataError("no.jsonl does not exist"), FileNotFoundError(errno.ENOENT, "gone"), STOPPED),
        (DataError("line 3 holds no prompt"), None, STOPPED),
        (DataError("d.jsonl cannot be read"), OSError(errno.EIO, "broken"), NOT_GOOD),
        (CheckpointRefused("other settings"), None, STOPPED),
        (CheckpointRefused("it cannot be read"), OSError(errno.ESTALE, "stale"), NOT_GOOD),
        (FolderError("no config.json"), None, STOPPED),
        (FileNotFoundError(errno.ENOENT, "gone"), None, STOPPED),
        (OSError(errno.ENOSPC, "full"), None, NOT_GOOD),
        (RunFolderBusy("another process trains"), None, NOT_GOOD),
        (UnusableModel("the reference has other tokens"), None, NOT_GOOD),
        (UnusableModel("the policy is no folder"), FolderError("no folder"), STOPPED),
        (NotStrict("a replica has other threads"), None, NOT_GOOD),
        (RolloutsFailed("nobody answers"), None, NOT_GOOD),
    ],
)
def test_only_what_no_other_try_mends_ends_a_job_for_good(error, cause, code):
    """A service or a disk may be well again at the next try."""

    def fail():
        raise error from cause

    with pytest.raises(SystemExit) as ended:
        command.run_or_explain("palate train ppo", fail)
    assert ended.value.code == code


def test_a_failed_start_does_not_stand_in_the_way_of_the_mended_command(tmp_path):
    make_tiny_policy(tmp_path / "base", 0, chat=True)
    (tmp_path / "chat.jinja").write_text(CHAT_TEMPLATE)
    rows = {
        "documents": [{"text": f"Once there was a {size} dog."} for size in ("small", "big", "old")],
        "demonstrations": [{"prompt": "who?", "completion": "a friend."}] * 4,
        "comparisons": [{"prompt": x, "chosen": "a friend", "rejected": "no"} for x in ("a", "b", "c", "d")],
    }
    for name, values in rows.items():
        write_rows(tmp_path / f"{name}.jsonl", values)
    shape = ["--vocabulary=300", "--hidden-size=16", "--layers=1", "--heads=2"]
    started = ["--model", str(tmp_path / "base")]
    phases = {
        "pretrain": ("--documents", "documents", "comparisons", shape),
        "sft": ("--data", "demonstrations", "comparisons", [*started, "--chat-template", str(tmp_path / "chat.jinja")]),
        "reward": ("--data", "comparisons", "demonstrations", started),
    }
    for phase, (flag, right, wrong, more) in phases.items():
        fixed = [*more, "--out", str(tmp_path / "out" / phase), "--max-steps=1", "--no-progress", "--threads=1"]
        failed = run(command.app, phase, *fixed, flag, str(tmp_path / f"{wrong}.jsonl"))
        assert failed.exit_code == STOPPED
        assert not (tmp_path / "out").exists(), phase
        mended = run(command.app, phase, *fixed, flag, str(tmp_path / f"{right}.jsonl"))
        assert mended.exit_code == 0, mended.output
        shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("total_stps: 5", "total_stps is unknown; did you mean total_steps?"),
        ("ppo: {kl_coeff: 0.1}", "ppo.kl_coeff is unknown; did you mean ppo.kl_coef?"),
        ("ppo: [", "is not YAML"),
    ],
)
def test_a_mistyped_key_of_a_file_is_refused_with_the_right_one(tmp_path, content, complaint):
    (tmp_path / "ppo.yaml").write_text(content)
    paths = ["--policy", "p", "--prompts", "q", "--out", "o"]
    done = run(command.app, "ppo", "--config", str(tmp_path / "ppo.yaml"), *paths)
    assert done.exit_code == STOPPED
    assert complaint in done.stderr


def test_collect_says_what_does_not_go_together_without_names_of_classes(tmp_path):
    paths = ["--policy", "127.0.0.1:1", "--prompts", "p.jsonl", "--out", str(tmp_path / "c.jsonl")]
    done = run(collect_command.app, *paths, "--annotator", "ann")
    assert done.stderr == "palate collect: --annotator goes with --labeller person or page, not simulated\n"


def test_collect_says_that_no_service_is_there(tmp_path):
    write_rows(tmp_path / "p.jsonl", [{"prompt": "x"}])
    paths = ["--prompts", str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "c.jsonl")]
    done = run(collect_command.app, "--policy", "127.0.0.1:1", "--timeout", "2", "--wait", "0", *paths)
    assert done.exit_code == STOPPED
    assert done.stderr.startswith("palate collect: ")
