"""`palate verify` through real servers; only the planted fault is a double, at the engine's seam."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from palate.local_server import local_server
from palate.models.export import export
from palate.models.folder import FolderError
from palate.models.onnx_runtime import onnxruntime
from palate.verify.command import app
from palate.verify.subject import EngineChoice, engines_here, servers
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
    assert [each["server"] for each in found["servers"]] == [each.value for each in engines_here(llama)]
    assert set(ways(found, 1)) == {*ways(found, 0), "against torch"}
    assert all(way["bitwise"] for name, way in ways(found, 1).items() if name != "against torch")
    assert 0 < ways(found, 1)["against torch"]["deviation"] < 1e-4
    assert "verified" in said.output


def test_int8_is_held_against_float32_with_a_tolerance_of_its_own(bert: Path, tmp_path: Path):
    both = ("--engine", "torch", "--engine", "onnx", "--device", "cpu")
    said = palate_verify("--model", bert, *both, "--json", tmp_path / "found.json")
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


def test_engines_of_a_folder(llama: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    assert engines_here(llama) == [EngineChoice.TORCH, EngineChoice.ONNX]
    assert engines_here(llama.parent / "trained") == [EngineChoice.TORCH]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert engines_here(llama) == [EngineChoice.TORCH, EngineChoice.ONNX, EngineChoice.TORCH_BFLOAT16]


def with_gpus(monkeypatch: pytest.MonkeyPatch, providers: list[str], capability: tuple[int, int] = (9, 0)) -> None:
    """Lets PyTorch see two GPUs, and ONNX Runtime those providers."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)


CUDA = ["CUDAExecutionProvider", "CPUExecutionProvider"]


def titles(folder: Path, device: str, *engines: EngineChoice, strict: bool = False) -> list[str]:
    return [each.title for each in servers(folder, engines, device, strict=strict)]


def test_engines_on_a_gpu_come_after_float32_on_the_processor(llama: Path, bert: Path, monkeypatch):
    with_gpus(monkeypatch, CUDA)
    on_gpu = ["torch", "torch on cuda:1", "onnx on cuda:1", "torch-bfloat16 on cuda:1"]
    assert titles(llama, "cuda:1") == on_gpu
    assert titles(llama, "auto") == [each.replace("cuda:1", "cuda:0") for each in on_gpu]
    assert titles(llama, "cuda", EngineChoice.ONNX, strict=True) == ["torch, strict", "onnx on cuda:0, strict"]
    assert titles(llama, "cpu", EngineChoice.ONNX) == ["onnx"]
    # An int8 export is for processors: it stays there unless a GPU is insisted on.
    assert titles(bert, "auto", EngineChoice.TORCH, EngineChoice.ONNX) == ["torch", "torch on cuda:0", "onnx"]
    assert titles(bert, "cuda", *engines_here(bert, "cuda"))[1:] == ["torch on cuda:0", "torch-bfloat16 on cuda:0"]
    with pytest.raises(FolderError, match="int8 export is for CPUs"):
        titles(bert, "cuda", EngineChoice.ONNX)


def test_what_a_gpu_or_its_library_lacks_is_left_out(llama: Path, monkeypatch: pytest.MonkeyPatch):
    with_gpus(monkeypatch, ["CPUExecutionProvider"], capability=(7, 5))
    assert titles(llama, "cuda") == ["torch", "torch on cuda:0"]
    assert titles(llama, "auto") == ["torch", "torch on cuda:0", "onnx"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--device", "cuda"), "PyTorch sees no GPU here; use --device cpu"),
        (("--device", "cuda", "--engine", "onnx"), "runs on CPUs alone"),
        (("--device", "gpu"), "it can be auto, cpu, cuda"),
    ],
)
def test_a_device_that_is_not_there_is_told_before_a_server_is_started(llama: Path, monkeypatch, words, complaint):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr("palate.verify.command.verify", lambda *_: pytest.fail("a server would be started"))
    said = palate_verify("--model", llama, *words)
    assert (said.exit_code, complaint in " ".join(said.stderr.replace("│", " ").split())) == (2, True), said.stderr


def test_without_anything_to_compare_with_it_is_told_what_to_install(llama: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("palate.verify.subject.find_spec", lambda name: None)
    with pytest.raises(FolderError, match="install torch or export"):
        servers(llama, [EngineChoice.TORCH], "auto", strict=False)
