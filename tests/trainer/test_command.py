import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tests.tiny_models import make_tiny_policy
from trainer import collect_command, command
from trainer.data.lines import write_rows


def run(app, *arguments):
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("phase", ["sft", "reward", "ppo"])
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
    assert done.exit_code == 2
    assert "did you mean --held-out?" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["sft", "--model", "absent", "--data", "{data}", "--out", "{out}"], "absent is not a folder"),
        (["reward", "--model", "{base}", "--data", "{data}", "--out", "{out}"], "d.jsonl:1: 'a' must be a text"),
    ],
)
def test_what_one_can_mend_is_said_in_a_line_without_a_traceback(tmp_path, arguments, complaint):
    write_rows(tmp_path / "d.jsonl", [{"prompt": "x", "completion": "y"}])
    places = {"data": tmp_path / "d.jsonl", "out": tmp_path / "out", "base": make_tiny_policy(tmp_path / "base", 0)}
    done = run(command.app, *(argument.format(**places) for argument in arguments))
    assert done.exit_code == 1
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_collect_says_that_no_service_is_there(tmp_path):
    write_rows(tmp_path / "p.jsonl", [{"prompt": "x"}])
    paths = ["--prompts", str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "c.jsonl")]
    done = run(collect_command.app, "--policy", "127.0.0.1:1", "--timeout", "2", *paths)
    assert done.exit_code == 1
    assert done.stderr.startswith("palate collect: ")
