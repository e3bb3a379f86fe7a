import errno
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from palate.models import export as export_module
from palate.models.ensemble import write_ensemble
from palate.models.export import ExportError, export
from palate.models.export_command import app
from palate.models.folder import FolderError
from palate.models.manifest import Calibration, digest_folder, load_manifest, write_manifest
from tests.reward_folders import make_bert


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("model", ["bert", "llama"])
def test_export_makes_a_whole_folder_with_the_same_revision(model: str, tmp_path: Path, request: pytest.FixtureRequest):
    source = request.getfixturevalue(model)
    made = export(source, tmp_path / "served")
    assert {"palate.json", "model.onnx", "model.safetensors", "config.json", "tokenizer.json"} <= set(
        everything_in(made.path)
    )
    assert made.deviation <= 1e-4
    loaded = load_manifest(made.path)
    assert loaded.manifest == made.manifest
    assert digest_folder(made.path, loaded.manifest) == digest_folder(source, load_manifest(source).manifest)
    assert everything_in(tmp_path)[0] == "served"  # and nothing beside it


def test_export_keeps_what_palate_json_says(bert: Path, tmp_path: Path):
    source = Path(shutil.copytree(bert, tmp_path / "source"))
    manifest = replace(load_manifest(bert).manifest, truncation="left", calibration=Calibration(1.0, 2.0))
    write_manifest(source, manifest)
    made = export(source, tmp_path / "served", overrides={"max_tokens": 64})
    assert replace(made.manifest, onnx=None) == replace(manifest, max_tokens=64)
    assert made.inferred == ()


@pytest.mark.parametrize("model", ["bert", "llama"])
def test_int8_export_is_near_the_checkpoint_and_says_what_it_is(
    model: str, tmp_path: Path, request: pytest.FixtureRequest
):
    source, handlers = request.getfixturevalue(model), list(logging.root.handlers)
    made = export(source, tmp_path / "served", precision="int8")
    assert 1e-4 < made.deviation <= 0.25  # eight bits, and no more than that
    assert made.manifest.onnx is not None
    assert made.manifest.onnx.precision == "int8"
    assert load_manifest(made.path).manifest == made.manifest
    assert digest_folder(made.path, made.manifest) == digest_folder(source, load_manifest(source).manifest)
    assert logging.root.handlers == handlers


def test_int8_further_off_than_allowed_leaves_nothing_behind(bert: Path, tmp_path: Path):
    with pytest.raises(ExportError, match="as float32"):
        export(bert, tmp_path / "served", precision="int8", tolerance=1e-4)
    assert everything_in(tmp_path) == []


def test_command_takes_the_precision(bert: Path, tmp_path: Path):
    arguments = ["--model", str(bert), "--out", str(tmp_path / "served"), "--precision"]
    assert CliRunner().invoke(app, [*arguments, "int4"]).exit_code == 2
    result = CliRunner().invoke(app, [*arguments, "int8"])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "served" / "palate.json").read_text())["onnx"]["precision"] == "int8"


def test_export_does_not_touch_what_exists(bert: Path, tmp_path: Path):
    target = tmp_path / "served"
    target.mkdir()
    (target / "precious").write_text("x")
    with pytest.raises(ExportError, match="exists"):
        export(bert, target)
    assert everything_in(target) == ["precious"]


def test_a_length_beyond_the_models_positions_is_refused_with_its_limit(bert: Path, tmp_path: Path):
    flags = ["--model", str(bert), "--out", str(tmp_path / "served"), "--max-tokens", "100000"]
    done = CliRunner().invoke(app, flags)
    assert done.exit_code == 2
    assert done.stderr.startswith("palate export: max_tokens is 100000; the model in ")
    assert "reads at most 128 tokens" in done.stderr
    assert everything_in(tmp_path) == []


def test_an_ensemble_is_exported_member_by_member(bert: Path, tmp_path: Path):
    members = [bert, make_bert(tmp_path / "other", seed=1)]
    write_ensemble(tmp_path / "both", members)
    done = CliRunner().invoke(app, ["--model", str(tmp_path / "both"), "--out", str(tmp_path / "served")])
    assert done.exit_code == 2
    assert "is an ensemble: export each of its members (" in done.stderr
    assert f"{tmp_path / 'other'}), then `palate ensemble`" in done.stderr
    assert not (tmp_path / "served").exists()


def test_pickled_weights_are_not_exported(bert: Path, tmp_path: Path):
    source = Path(shutil.copytree(bert, tmp_path / "source"))
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    done = CliRunner().invoke(app, ["--model", str(source), "--out", str(tmp_path / "served")])
    assert done.exit_code == 2
    assert "Pickled weights are never loaded" in done.stderr
    assert "BertForSequenceClassification.from_pretrained" in done.stderr


def test_export_of_a_policy_or_of_nothing_is_refused(chat_policy: Path, tmp_path: Path):
    with pytest.raises(ExportError, match="policy"):
        export(chat_policy, tmp_path / "served")
    with pytest.raises(FolderError, match="not a folder"):
        export(tmp_path / "nothing", tmp_path / "served")
    assert everything_in(tmp_path) == []


def test_engines_that_disagree_leave_nothing_behind(bert: Path, tmp_path: Path):
    with pytest.raises(ExportError, match="standard deviations"):
        export(bert, tmp_path / "served", tolerance=1e-12)
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "permissions"), (errno.EROFS, "read-only")]
)
def test_failing_disk_is_explained_and_leaves_nothing_behind(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
):
    def fail(*_):
        raise OSError(number, "no")

    monkeypatch.setattr(export_module, "write_manifest", fail)
    with pytest.raises(ExportError, match=remedy):
        export(bert, tmp_path / "served")
    assert everything_in(tmp_path) == []


def test_path_through_a_file_is_explained(bert: Path, tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExportError, match="a part of its path is a file"):
        export(bert, tmp_path / "file" / "served")


def test_command_lists_what_it_assumed_and_names_the_revision(bert: Path, tmp_path: Path):
    result = CliRunner().invoke(app, ["--model", str(bert), "--out", str(tmp_path / "served"), "--truncation", "left"])
    assert result.exit_code == 0, result.output
    manifest = load_manifest(tmp_path / "served").manifest
    assert manifest.truncation == "left"
    assert digest_folder(tmp_path / "served", manifest).revision in result.output
    assert "not said by the folder: template_kind" in result.output
    assert "not said by the folder: truncation" not in result.output


def test_command_says_what_is_wrong_and_exits_with_2(tmp_path: Path):
    result = CliRunner().invoke(app, ["--model", str(tmp_path / "no"), "--out", str(tmp_path / "served")])
    assert result.exit_code == 2
    assert "not a folder" in result.output
    several = make_bert(tmp_path / "several", num_labels=2)
    arguments = ["--model", str(several), "--out", str(tmp_path / "served")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "--score-index" in result.output
    assert CliRunner().invoke(app, [*arguments, "--score-index", "1"]).exit_code == 0


def test_model_too_large_for_one_file_is_refused(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(export_module, "_MAX_ONNX_BYTES", 1000)
    with pytest.raises(ExportError, match="--engine torch"):
        export(bert, tmp_path / "served")
    assert everything_in(tmp_path) == []
