"""`palate verify` through real servers; only the planted fault is a double, at the engine's seam."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from palate.local_server import local_server
from palate.models.export import export
from palate.verify.command import app
from palate.verify.subject import EngineChoice, engines_here
from tests.reward_folders import make_bert, make_llama
from tests.servers import start_server
from tests.tiny_models import make_tiny_policy

BROKEN = Path(__file__).with_name("batch_dependent_server.py")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("verified")
    return export(make_llama(root / "trained"), root / "served").path


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("verified")
    return export(make_bert(root / "trained"), root / "int8", precision="int8").path


def palate_verify(*words: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(word) for word in words])


def ways(document: dict, server: int) -> dict[str, dict]:
    return {way["way"]: way for way in document["servers"][server]["ways"]}


def test_both_engines_of_a_decoder_by_every_way(llama: Path, tmp_path: Path):
    said = palate_verify("--model", llama, "--json", tmp_path / "found.json")
    assert said.exit_code == 0, said.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["ok"], found["reference"], found["texts"]) == (True, "torch", 30)
    assert set(ways(found, 0)) == {"alone, again", "batched", "ranked", "streamed"}
    assert set(ways(found, 1)) == {*ways(found, 0), "against torch"}
    assert all(way["bitwise"] for name, way in ways(found, 1).items() if name != "against torch")
    assert 0 < ways(found, 1)["against torch"]["deviation"] < 1e-4
    assert "verified" in said.output


def test_int8_is_held_against_float32_with_a_tolerance_of_its_own(bert: Path, tmp_path: Path):
    said = palate_verify("--model", bert, "--json", tmp_path / "found.json")
    assert said.exit_code == 0, said.output
    shifted = ways(json.loads((tmp_path / "found.json").read_text()), 1)["against torch"]
    assert 1e-4 < shifted["deviation"] < shifted["allowed"] == 0.25
    assert shifted["spearman"] >= shifted["least_spearman"] == 0.99


def test_strict_allows_nothing_but_the_same_bits(llama: Path, tmp_path: Path):
    said = palate_verify("--model", llama, "--engine", "torch", "--strict", "--json", tmp_path / "found.json")
    assert said.exit_code == 0, said.output
    (server,) = json.loads((tmp_path / "found.json").read_text())["servers"]
    assert server["strict"]
    assert all(way["bitwise"] and way["allowed"] == 0 for way in server["ways"])


def test_running_server_whose_scores_depend_on_the_batch_is_caught(llama: Path, tmp_path: Path):
    flags = ["--model", str(llama), "--engine", "fake", "--parity-tolerance", "100", "--cache-items", "0"]
    with local_server([str(BROKEN), *flags]) as server:
        said = palate_verify(
            "--model", llama, "--engine", "onnx", "--against", server.target, "--json", tmp_path / "found.json"
        )
    assert said.exit_code == 1, said.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert all(way["ok"] for way in ways(found, 0).values())
    good = {name for name, way in ways(found, 1).items() if way["ok"]}
    assert good - {"streamed"} == {"alone, again"}  # so quick an engine may find a stream's items one by one


def test_running_server_of_another_revision_is_said_to_be_one(llama: Path, tmp_path: Path):
    other = make_llama(tmp_path / "other", seed=1)
    with start_server("services.reward", other, "--engine", "torch") as server:
        said = palate_verify("--model", llama, "--engine", "onnx", "--against", server.target)
    assert said.exit_code == 1
    assert "cannot be compared" in said.output


def test_own_texts(llama: Path, tmp_path: Path):
    file = tmp_path / "texts.jsonl"
    rows = [{"prompt": "What do you think?", "completion": "It is an honest plan." * n} for n in (1, 2, 3)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = palate_verify("--model", llama, "--engine", "onnx", "--texts", file)
    assert (said.exit_code, "3 texts" in said.output) == (0, True), said.output


@pytest.mark.parametrize(
    ("content", "complaint"),
    [('{"prompt": "a"}\n', "line 1"), ('{"prompt": "a", "completion": "b"}\n', "there must be two"), ("a", "not JSON")],
)
def test_texts_that_cannot_be_used(llama: Path, tmp_path: Path, content: str, complaint: str):
    (tmp_path / "texts.jsonl").write_text(content)
    said = palate_verify("--model", llama, "--texts", tmp_path / "texts.jsonl")
    assert (said.exit_code, complaint in said.stderr) == (2, True), said.stderr


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (lambda folder: None, "is not a folder"),
        (lambda folder: folder.mkdir(), "has no config.json"),
        (lambda folder: make_tiny_policy(folder, 0), "holds a policy"),
        (lambda folder: make_llama(folder).joinpath("palate.json").write_text("{"), "palate.json"),
    ],
)
def test_a_folder_that_cannot_be_verified_is_told_before_a_server_is_started(tmp_path, monkeypatch, broken, complaint):
    monkeypatch.setattr("palate.verify.command.verify", lambda *_: pytest.fail("a server would be started"))
    broken(tmp_path / "model")
    said = palate_verify("--model", tmp_path / "model", "--engine", "onnx")
    assert (said.exit_code, complaint in said.stderr) == (2, True), said.stderr


def test_engine_that_the_folder_lacks_is_told_with_the_servers_own_words(llama: Path):
    said = palate_verify("--model", llama.parent / "trained", "--engine", "onnx")
    assert said.exit_code == 1
    assert "palate export" in said.output


def test_engines_of_a_folder(llama: Path):
    assert engines_here(llama) == [EngineChoice.TORCH, EngineChoice.ONNX]
    assert engines_here(llama.parent / "trained") == [EngineChoice.TORCH]
