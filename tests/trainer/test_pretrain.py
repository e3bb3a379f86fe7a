import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from palate.models.manifest import load_manifest
from palate.models.rendering import Renderer
from tests.json_lines import read_rows
from trainer.data.lines import DataError, write_rows
from trainer.pretrain import document_rows, run_pretrain
from trainer.pretrain_config import PretrainConfig
from trainer.tokenizer import train_tokenizer

TEXTS = [f"Once there was a {size} {animal} who liked the {place}." for size in ("small", "big", "old")
         for animal in ("dog", "cat", "fish", "bird") for place in ("park", "river", "garden")]  # fmt: skip


def config(tmp_path, **changes):
    write_rows(tmp_path / "documents.jsonl", [{"text": text} for text in TEXTS])
    small = {"vocabulary": 320, "hidden_size": 32, "layers": 2, "heads": 2, "block_tokens": 32, "max_tokens": 64}
    training = {"epochs": 60, "batch_size": 8, "threads": 1, "progress": False, "log_every": 5}
    return PretrainConfig(
        **{"out": tmp_path / "base", "documents": tmp_path / "documents.jsonl", **small, **training, **changes}
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrain")
    return run_pretrain(config(folder))


def test_the_base_model_learns_its_text(base):
    rows = read_rows(base.model_folder.parent / "metrics.jsonl")
    losses = [row["train/loss"] for row in rows]
    assert losses[0] > 4.0  # near ln 320, as nothing is known yet
    assert losses[-1] < 0.5 * losses[0]
    assert base.fitted.loss == losses[-1]


def test_the_folder_is_a_policy_that_renders_with_one_bos(base):
    loaded = load_manifest(base.model_folder)
    assert (loaded.manifest.kind, loaded.manifest.template_kind, loaded.inferred) == ("policy", "chat", ())
    renderer = Renderer.from_folder(base.model_folder, loaded.manifest)
    ids = renderer.render_prompt("a small dog")
    assert renderer.tokens(ids[:2]) == ["<s>", "<|user|>"]
    assert renderer.tokens(ids[-1:]) == ["<|assistant|>"]
    assert len({renderer.pad_id, renderer.bos_id, renderer.eos_id}) == 3


def test_our_demonstration_mask_is_that_of_transformers_generation_markers(base):
    renderer = Renderer.from_folder(base.model_folder, load_manifest(base.model_folder).manifest)
    ids, mask = renderer.render_demonstration("a small dog", "liked the park.")
    messages = [{"role": "user", "content": "a small dog"}, {"role": "assistant", "content": "liked the park."}]
    theirs = AutoTokenizer.from_pretrained(base.model_folder).apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    assert (ids, mask) == (theirs["input_ids"], theirs["assistant_masks"])


def test_transformers_loads_it_and_nothing_stops_it(base):
    model = AutoModelForCausalLM.from_pretrained(base.model_folder)
    assert model.config.tie_word_embeddings
    assert base.parameters == sum(parameter.numel() for parameter in model.parameters())
    prompt = torch.tensor([[model.config.bos_token_id]])
    drawn = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=40, do_sample=False)
    assert model.config.eos_token_id not in drawn[0].tolist()


def test_every_token_of_every_document_is_learnt():
    tokenizer = train_tokenizer(TEXTS, 320)
    rows = document_rows(tokenizer, TEXTS, 16)
    ids = [token for row in rows for token in row["input_ids"]]
    assert all(len(row["input_ids"]) <= 16 and row["labels"] == row["input_ids"] for row in rows)
    assert ids == [token for text in TEXTS for token in tokenizer.encode(text).ids]


def test_the_tokenizer_can_know_more_text_than_the_model_reads(tmp_path):
    plain = run_pretrain(config(tmp_path, max_steps=1, vocabulary=400))
    write_rows(tmp_path / "more.jsonl", [{"prompt": "Xylophones?", "completion": "Xylophones."}] * 50)
    wide = run_pretrain(
        config(tmp_path, max_steps=1, vocabulary=400, out=tmp_path / "wide", tokenizer_texts=tmp_path / "more.jsonl")
    )
    sizes = []
    for result in (plain, wide):
        renderer = Renderer.from_folder(result.model_folder, load_manifest(result.model_folder).manifest)
        sizes.append(len(renderer.render_prompt("Xylophones")))
    assert sizes[1] < sizes[0]
    assert abs(wide.tokens - plain.tokens) < 200


def test_too_little_text_and_impossible_shapes_are_refused(tmp_path):
    with pytest.raises(DataError, match="no document has a token"):
        document_rows(train_tokenizer(TEXTS, 320), [""], 64)
    with pytest.raises(ValidationError, match="multiple of 2 x heads"):
        config(tmp_path, heads=3)
    with pytest.raises(ValidationError, match="more than max_tokens"):
        config(tmp_path, block_tokens=128)
