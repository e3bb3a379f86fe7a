import errno
import json
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from transformers import TrainerState
from transformers import trainer as trainer_of_transformers
from typer.testing import CliRunner

from palate.exit_codes import NOT_GOOD
from palate.file_errors import words_of
from palate.models.unwritten import os_error_of
from tests.file_limits import files_of_at_most
from tests.tiny_models import make_tiny_policy
from trainer import command
from trainer.data.lines import write_rows
from trainer.errors import NotWritten
from trainer.model_folder import replaced_folder
from trainer.run_folder import newest_checkpoint
from trainer.written import written

TENSORS = {"weight": torch.zeros(100_000)}
WRITERS = {
    "safetensors": lambda file: save_file(TENSORS, file),
    "torch": lambda file: torch.save(TENSORS, file),
    "tokenizers": lambda file: Tokenizer(models.WordLevel({str(i): i for i in range(5000)}, unk_token="0")).save(
        str(file)
    ),
    "python": lambda file: file.write_bytes(bytes(100_000)),
}


@pytest.mark.parametrize("library", WRITERS)
def test_every_library_says_of_the_disk_what_one_can_mend(tmp_path, library):
    file = tmp_path / "file"
    with (
        pytest.raises(NotWritten) as raised,
        files_of_at_most(20_000),
        written(file),
    ):
        WRITERS[library](file)
    assert str(raised.value).startswith(f"{file} cannot be written: ")
    assert str(raised.value).endswith("choose another --out")


def test_a_full_disk_is_called_one():
    """The words of safetensors 0.8, as it says them on a full tmpfs."""
    error = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert os_error_of(error).errno == errno.ENOSPC
    with (
        pytest.raises(NotWritten, match="the disk is full; free some space"),
        written("model"),
    ):
        raise error


@pytest.mark.parametrize(
    "error",
    [SafetensorError("Error while deserializing header"), RuntimeError("shapes differ"), PermissionError(13, "no")],
)
def test_other_errors_stay_as_they_are(error):
    with pytest.raises(type(error)) as raised, written("model"):
        raise error
    assert raised.value is error


def test_a_write_that_names_no_file_has_a_remedy_too():
    assert words_of(OSError(errno.ENOSPC, "No space left on device")).startswith("a file cannot be written: the disk")


def test_what_could_not_be_written_whole_is_not_in_the_way_and_the_older_folder_stays(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(NotWritten), files_of_at_most(20_000), replaced_folder(folder) as draft:
        save_file(TENSORS, draft / "model.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("phase", ["sft", "reward"])
@pytest.mark.parametrize("checkpoints", [0, 1])
def test_training_on_a_full_disk_ends_with_a_line_and_goes_on_once_there_is_room(tmp_path, phase, checkpoints):
    base = make_tiny_policy(tmp_path / "base", 0, chat=True)
    keys = {"sft": ("prompt", "completion"), "reward": ("prompt", "chosen", "rejected")}[phase]
    rows = [dict(zip(keys, (f"what is {x}?", "a friend", "no"), strict=False)) for x in "abcdefgh"]
    write_rows(tmp_path / "rows.jsonl", rows)
    out = tmp_path / "out"
    places = ["--model", str(base), "--data", str(tmp_path / "rows.jsonl"), "--out", str(out)]
    fixed = [phase, *places, "--max-steps=2", f"--checkpoint-every={checkpoints}", "--no-progress", "--threads=1"]
    with files_of_at_most(20_000):
        done = CliRunner().invoke(command.app, fixed)
    assert done.exit_code == NOT_GOOD, done.output
    place = out / "checkpoints" / "checkpoint-1" if checkpoints else out / "model" / "model.safetensors"
    assert done.stderr.splitlines()[-1].startswith(f"palate train {phase}: {place} cannot be written: no file may be")
    assert "choose another --out. Once it can be, the same command with --resume goes on" in done.stderr
    assert newest_checkpoint(out) is None
    assert not list(out.glob("*.draft"))
    again = CliRunner().invoke(command.app, [*fixed, "--resume"])
    assert again.exit_code == 0, again.output
    assert json.loads((out / "model" / "palate.json").read_text())


def test_a_command_without_resume_does_not_name_it(tmp_path, capsys):
    with pytest.raises(SystemExit), files_of_at_most(20_000):
        command.run_or_explain("palate train report", lambda: _write(tmp_path / "file"), lambda: "nothing is written")
    assert capsys.readouterr().err.endswith("choose another --out\n")


def _write(file):
    with written(file):
        WRITERS["python"](file)


def _cut_short(state, path):
    Path(path).write_text('{"epoch": ')
    raise OSError(errno.ENOSPC, "No space left on device")


def _not_sorted(**_):
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize(
    ("of", "name", "broken", "kept"),
    [
        (TrainerState, "save_to_json", _cut_short, False),
        (trainer_of_transformers, "rotate_checkpoints", _not_sorted, True),
    ],
)
def test_a_checkpoint_goes_only_where_it_is_not_whole(tmp_path, monkeypatch, of, name, broken, kept):
    base = make_tiny_policy(tmp_path / "base", 0, chat=True)
    write_rows(tmp_path / "rows.jsonl", [{"prompt": x, "completion": "a friend"} for x in "abcd"])
    places = ["--model", str(base), "--data", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "out")]
    fixed = ["sft", *places, "--max-steps=2", "--checkpoint-every=1", "--no-progress", "--threads=1"]
    with monkeypatch.context() as patched:
        patched.setattr(of, name, broken)
        assert CliRunner().invoke(command.app, fixed).exit_code == NOT_GOOD
    assert (newest_checkpoint(tmp_path / "out") is not None) == kept
    assert CliRunner().invoke(command.app, [*fixed, "--resume"]).exit_code == 0
