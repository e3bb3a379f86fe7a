import json
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors.numpy import load_file, save_file

from palate.models.ensemble import Ensemble, Member
from palate.models.folder import FolderError
from palate.models.manifest import (
    Calibration,
    Manifest,
    ManifestError,
    OnnxExport,
    build,
    digest_folder,
    load_manifest,
    said_by,
    write_manifest,
)
from palate.models.manifest_fields import ENSEMBLE_FIELDS, FIELDS
from tests.reward_folders import change_json, make_bert, make_llama
from tests.tiny_models import make_tiny_gpt2

ENCODER = Manifest("reward", "encoder", "pair", add_bos=False, add_eos=False, max_tokens=128)


@pytest.fixture
def folder(bert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bert, tmp_path / "model"))


def test_written_manifest_reads_back_equal(folder: Path):
    manifest = replace(ENCODER, truncation="left", logit_scale=0.5, calibration=Calibration(1.5, 2.0))
    write_manifest(folder, manifest)
    loaded = load_manifest(folder)
    assert loaded.manifest == manifest
    assert loaded.inferred == ()


def test_foreign_encoder_is_inferred_and_everything_assumed_is_listed(bert: Path):
    loaded = load_manifest(bert)
    assert loaded.manifest == ENCODER
    listed = {item.missing for item in loaded.inferred}
    assert listed == {"palate.json", "template_kind", "max_tokens", "truncation", "logit_scale", "calibration"}


def test_foreign_decoder_with_chat_template_is_inferred(llama: Path):
    manifest = load_manifest(llama).manifest
    assert (manifest.architecture, manifest.template_kind, manifest.add_bos, manifest.max_tokens) == (
        "decoder",
        "chat",
        False,
        256,
    )  # fmt: skip


def test_foreign_decoder_without_chat_template_takes_bos_from_its_post_processor(tmp_path: Path):
    manifest = load_manifest(make_llama(tmp_path, chat_template=None)).manifest
    assert (manifest.template_kind, manifest.add_bos, manifest.add_eos) == ("join", True, False)


def test_foreign_causal_model_is_a_policy(chat_policy: Path, tmp_path: Path):
    assert load_manifest(chat_policy).manifest.kind == "policy"
    gpt2 = load_manifest(make_tiny_gpt2(tmp_path, seed=0)).manifest
    assert (gpt2.kind, gpt2.architecture, gpt2.max_tokens) == ("policy", "decoder", 256)


def test_a_masked_language_model_is_neither_and_the_way_to_one_is_told(bert: Path, tmp_path: Path):
    shutil.copytree(bert, folder := tmp_path / "masked")
    change_json(folder / "config.json", architectures=["BertForMaskedLM"])
    with pytest.raises(
        FolderError, match=r"names \['BertForMaskedLM'\].*`palate train reward` makes a reward model of"
    ):
        load_manifest(folder)


def test_overrides_win_and_are_no_longer_listed_as_assumed(bert: Path):
    loaded = load_manifest(bert, {"truncation": "left", "max_tokens": 64})
    assert (loaded.manifest.truncation, loaded.manifest.max_tokens) == ("left", 64)
    assert not {"truncation", "max_tokens"} & {item.missing for item in loaded.inferred}


def test_head_that_is_not_in_the_checkpoint_is_refused(folder: Path):
    file = folder / "model.safetensors"
    tensors = {name: value for name, value in load_file(file).items() if not name.startswith("classifier")}
    save_file(tensors, file)
    with pytest.raises(FolderError, match="classifier head"):
        load_manifest(folder)
    write_manifest(folder, ENCODER)
    with pytest.raises(FolderError, match="classifier head"):
        load_manifest(folder)


def test_several_labels_need_to_be_told_which_is_the_score(tmp_path: Path):
    folder = make_bert(tmp_path, num_labels=3)
    with pytest.raises(ManifestError, match="score_index"):
        load_manifest(folder)
    assert load_manifest(folder, {"score_index": 2}).manifest.score_index == 2
    assert load_manifest(folder, {"score_weights": (0.0, 0.5, 1.0)}).manifest.score_weights == (0.0, 0.5, 1.0)
    with pytest.raises(ManifestError, match="3 labels"):
        load_manifest(folder, {"score_index": 3})
    with pytest.raises(ManifestError, match="2 entries"):
        load_manifest(folder, {"score_weights": (0.0, 0.5)})


def test_several_labels_can_be_members(tmp_path: Path):
    folder = make_bert(tmp_path, num_labels=3)
    alone = load_manifest(folder, {"score_index": 2}).manifest
    members = load_manifest(folder, {"member_labels": (0, 2)}).manifest
    write_manifest(folder, members)
    assert load_manifest(folder).manifest == members
    assert digest_folder(folder, members).template != digest_folder(folder, alone).template


def test_pad_tokens_that_mislead_transformers_are_reported(tmp_path: Path):
    same = load_manifest(make_llama(tmp_path / "same", pad_is_eos=True)).inferred
    assert "a pad token that is not the end-of-sequence token" in [item.missing for item in same]
    none = load_manifest(make_llama(tmp_path / "none", pad_in_config=False)).inferred
    assert "pad_token_id in config.json" in [item.missing for item in none]


def test_ordinary_pad_token_is_not_reported(llama: Path):
    assert not any("pad token" in item.missing or "pad_token" in item.missing for item in load_manifest(llama).inferred)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"truncation": "middle"}, "reject, left, right"),
        ({"surprise": 1}, "surprise is unknown"),
        ({"format_version": 99}, "format_version"),
        ({"calibration": {"mean": 0.0, "std": 0.0}}, "std above 0"),
        ({"calibration": 3}, "not a JSON object"),
        ({"calibration": {"mean": 0.0}}, "std"),
        ({"add_bos": "yes"}, "add_bos"),
        ({"logit_scale": -1}, "logit_scale"),
        ({"template_kind": "pair", "architecture": "decoder"}, "pair"),
        ({"score_index": 0, "score_weights": [1.0]}, "not both"),
        ({"max_token": 64}, r"max_token is unknown; did you mean max_tokens\?"),
        ({"qqq": 64}, "qqq is unknown; the fields are kind, architecture"),
        ({"calibration": {"mean": 0.0, "sdt": 1.0}}, r"calibration\.sdt is unknown; did you mean std\?"),
        ({"calibration": {"mean": "low", "std": 1.0}}, r'calibration\.mean is "low"; expected a finite number'),
        ({"calibration": {"mean": 0.0}}, r"missing: calibration\.std \(expected a finite std above 0\)"),
        ({"onnx": {"sha256": 5, "weights_digest": "0" * 64}}, r"onnx\.sha256 is 5; expected a SHA-256"),
        ({"kind": ["reward"]}, r'kind is \["reward"\]; expected one of reward, policy'),
        ({"score_weights": 0.5}, r"score_weights is 0\.5, not a list; expected a list of finite numbers"),
        ({"score_weights": ["a"]}, r'score_weights is \["a"\]; expected a list of finite numbers'),
        ({"kind": "policy"}, r'kind is "policy" beside architecture "encoder"; expected "reward"'),
        ({"add_eos": True}, r'add_eos is true beside architecture "encoder"; expected false'),
        ({"truncation": "x" * 1000}, r'truncation is "x{79}\.\.\.; expected'),
        ({"logit_scale": 10**400}, "logit_scale is 1000"),
        ({"max_tokens": 129}, r"max_tokens is 129; the model in .* reads at most 128 tokens"),
        ({"score_index": 0, "member_labels": [0, 1]}, "not both"),
        ({"member_labels": [0]}, "at least two"),
        ({"member_labels": [1, 1]}, "at least two"),
        ({"member_labels": [0, -1]}, "count from 0"),
        ({"member_labels": [0, 1]}, "the model has 1 labels"),
        ({"member_labels": 2}, "member_labels is 2, not a list"),
    ],
)
def test_wrong_manifest_says_which_field(folder: Path, change: dict, message: str):
    write_manifest(folder, ENCODER)
    change_json(folder / "palate.json", **change)
    with pytest.raises(ManifestError, match=message) as raised:
        load_manifest(folder)
    assert str(raised.value).startswith(f"{folder / 'palate.json'}: ")


@pytest.mark.parametrize("value", [None, True, -1, 0.5, 10**400, float("nan"), "", "x", [], [None], {}, {"std": []}])
@pytest.mark.parametrize("name", [*(field.name for field in fields(Manifest)), "calibration.std"])
def test_no_value_of_any_field_gives_another_error(name: str, value: object):
    document = said_by(replace(ENCODER, calibration=Calibration(0.0, 1.0)))
    outer, _, inner = name.partition(".")
    document |= {outer: {**document[outer], inner: value} if inner else value}
    with suppress(ManifestError):
        assert isinstance(build(Manifest, document, FIELDS), Manifest)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, "\udcff"])
def test_a_file_that_holds_no_object_is_refused_by_name(folder: Path, text: str):
    (folder / "palate.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ManifestError, match=r"palate\.json"):
        load_manifest(folder)


def test_fields_are_described_in_the_order_of_the_file():
    assert list(FIELDS) == names_of(Manifest, calibration=Calibration, onnx=OnnxExport)
    of_ensembles = names_of(Ensemble, members=Member, calibration=Calibration)
    assert set(ENSEMBLE_FIELDS) - {"members"} == set(of_ensembles)
    for field in (*FIELDS.values(), *ENSEMBLE_FIELDS.values()):
        assert field.meaning
        assert field.name == "members" or field.holds(field.example)


def names_of(kind: type, **nested: type) -> list[str]:
    """Names of a dataclass's fields as the file has them."""
    names = []
    for field in fields(kind):
        inner = nested.get(field.name)
        names += [f"{field.name}.{each.name}" for each in fields(inner)] if inner else [field.name]
    return names


def test_a_length_beyond_the_positions_is_refused_where_it_is_given(folder: Path, tmp_path: Path):
    with pytest.raises(ManifestError, match="reads at most 128 tokens") as raised:
        load_manifest(folder, {"max_tokens": 100_000})
    assert "palate.json" not in str(raised.value)
    change_json(folder / "config.json", model_type="roberta")  # numbers its positions from pad_token_id + 1
    with pytest.raises(ManifestError, match="reads at most 127 tokens"):
        load_manifest(folder, {"max_tokens": 128})


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
def test_pickled_weights_are_refused_with_the_way_to_convert_them(folder: Path, name: str):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"pickle")
    with pytest.raises(FolderError, match="Pickled weights are never loaded") as raised:
        load_manifest(folder)
    assert name in str(raised.value)
    assert "copy" not in str(raised.value)


def test_the_way_to_convert_pickled_weights_works(folder: Path):
    before = digest_folder(folder, ENCODER)
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(FolderError) as raised:
        load_manifest(folder)
    code = str(raised.value).partition('python -c "')[2].rstrip('"')
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert digest_folder(folder, load_manifest(folder).manifest).weights == before.weights


def test_missing_field_is_named(folder: Path):
    (folder / "palate.json").write_text('{"format_version": 1, "kind": "reward"}')
    with pytest.raises(ManifestError, match="template_kind"):
        load_manifest(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_file_is_named(folder: Path, name: str):
    (folder / name).unlink()
    with pytest.raises(FolderError, match=name.rpartition(".")[2]):
        load_manifest(folder)


def test_no_folder_at_all(tmp_path: Path):
    with pytest.raises(FolderError, match="not a folder"):
        load_manifest(tmp_path / "nothing")


@pytest.mark.parametrize("length", [0, 4, 500])
def test_cut_off_checkpoint_is_refused(folder: Path, length: int):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(FolderError, match="not a whole safetensors file"):
        load_manifest(folder)


def test_digests_move_with_what_they_name_and_with_nothing_else(folder: Path):
    before = digest_folder(folder, ENCODER)
    assert digest_folder(folder, ENCODER) == before
    (folder / "README.md").write_text("hello")
    assert digest_folder(folder, ENCODER) == before

    truncating = digest_folder(folder, replace(ENCODER, truncation="left"))
    assert truncating.template != before.template
    assert truncating.weights == before.weights

    calibrated = digest_folder(folder, replace(ENCODER, calibration=Calibration(0.0, 2.0)))
    assert calibrated.template == before.template
    assert len({before.revision, truncating.revision, calibrated.revision}) == 3

    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["classifier.bias"] = tensors["classifier.bias"] + 1
    save_file(tensors, file)
    changed = digest_folder(folder, ENCODER)
    assert changed.weights != before.weights
    assert changed.tokenizer == before.tokenizer


def test_weights_digest_does_not_depend_on_how_tensors_are_spread_over_files(folder: Path):
    before = digest_folder(folder, ENCODER)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for part, inside in parts.items():
        save_file({name: tensors[name] for name in inside}, folder / part)
    weight_map = {name: part for part, inside in parts.items() for name in inside}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    file.unlink()
    assert digest_folder(folder, ENCODER) == before
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(FolderError, match="lacks model-2"):
        load_manifest(folder)


def test_files_beside_the_checkpoint_do_not_count(folder: Path):
    before = digest_folder(folder, ENCODER)
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")
    assert digest_folder(folder, ENCODER) == before


def test_tokenizer_digest_ignores_padding_and_truncation(folder: Path):
    before = digest_folder(folder, ENCODER)
    truncation = {"max_length": 8, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    change_json(folder / "tokenizer.json", truncation=truncation)
    assert digest_folder(folder, ENCODER) == before
