from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    GPT2Config,
    JambaConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from palate.models.classifier import MaskedClassifier
from palate.models.torch_device import computes_bfloat16
from services.reward.engine import Row
from services.reward.prefix_reuse import obstacle_to_reuse
from tests.services.reward.references import open_folder

SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "num_labels": 1,
    "pad_token_id": 0,
}


def random_rows(seed: int = 0, prompts: int = 2, completions: int = 8) -> list[Row]:
    """Completions of 1 to 30 tokens after prompts of 100, with rows that share nothing among them."""
    draw = np.random.default_rng(seed)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(draw.integers(4, 300, count).tolist())

    rows = [Row(ids(draw.integers(1, 60))) for _ in range(3)]
    for _ in range(prompts):
        prompt = ids(100)
        rows += [Row((*prompt, *ids(draw.integers(1, 31)))) for _ in range(completions)]
    return [rows[place] for place in draw.permutation(len(rows))]


def alone(engine: Any, rows: list[Row]) -> np.ndarray:
    return np.concatenate([engine.score([row]) for row in rows])


class Watched:
    """Counts what an engine's model is asked for."""

    def __init__(self, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prefixes: list[int] = []
        self.held: list[tuple[int, int]] = []  # (rows, tokens of the longest) whose keys and values are held
        model, read, go_on = engine._model, engine._model.read_prefix, engine._model.go_on

        def watched_read(ids: torch.Tensor) -> Any:
            self.prefixes.append(ids.shape[1])
            return read(ids)

        def watched_go_on(prefix: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            self.held.append((len(ids), prefix.get_seq_length() + ids.shape[1]))
            return go_on(prefix, ids, mask)

        monkeypatch.setattr(model, "read_prefix", watched_read)
        monkeypatch.setattr(model, "go_on", watched_go_on)


def test_prompts_are_computed_once_and_the_scores_stay(llama: Path, monkeypatch: pytest.MonkeyPatch):
    engine, _ = open_folder(llama, "torch")
    rows = random_rows()
    expected, watched = alone(engine, rows), Watched(engine, monkeypatch)
    found = engine.score(rows)
    assert watched.prefixes == [100, 100]
    assert np.abs(found - expected).max() <= 1e-4 * expected.std()


def test_keys_and_values_stay_within_the_budget(llama: Path, monkeypatch: pytest.MonkeyPatch):
    engine, _ = open_folder(llama, "torch", max_batch_tokens=500)
    rows = random_rows(1)
    expected, watched = alone(engine, rows), Watched(engine, monkeypatch)
    found = engine.score(rows)
    assert watched.prefixes == [100, 100]  # several chunks go on after one prefix
    assert len(watched.held) > 4
    assert max(rows * longest for rows, longest in watched.held) + 100 <= 500
    assert np.abs(found - expected).max() <= 1e-4 * expected.std()


@pytest.mark.parametrize("options", [{"strict": True}, {"dtype": "bfloat16"}], ids=["strict", "bfloat16"])
def test_where_bits_matter_nothing_is_shared(llama: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    if "dtype" in options and not computes_bfloat16(torch.cpu.get_capabilities()):
        pytest.skip("this processor has no bfloat16 products")
    engine, _ = open_folder(llama, "torch", **options)
    rows = random_rows(2)
    watched = Watched(engine, monkeypatch)
    assert np.array_equal(engine.score(rows), alone(engine, rows))
    assert watched.prefixes == []


def classifier(config: PreTrainedConfig) -> MaskedClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config)
    return MaskedClassifier(model.requires_grad_(False), "decoder").eval()


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SHAPE),
        Qwen2Config(**SHAPE),
        MistralConfig(**SHAPE, sliding_window=None),
        GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, num_labels=1, pad_token_id=0, initializer_range=0.3),
    ],
    ids=lambda config: config.model_type,
)
def test_models_that_keep_all_keys_and_values_can(config: PreTrainedConfig):
    assert obstacle_to_reuse(classifier(config)) is None


@pytest.mark.parametrize(
    ("config", "obstacle"),
    [
        (MistralConfig(**SHAPE, sliding_window=16), "DynamicSlidingWindowLayer"),
        (JambaConfig(**SHAPE, attn_layer_period=2, attn_layer_offset=1, num_experts=1), "not them alone"),
        (LlamaConfig(**SHAPE, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}), "dynamic"),
    ],
    ids=["sliding", "hybrid", "rope"],
)
def test_models_that_keep_something_else_cannot(config: PreTrainedConfig, obstacle: str):
    assert obstacle in str(obstacle_to_reuse(classifier(config)))


def test_model_whose_rows_come_out_otherwise_cannot():
    class Forgetful(MaskedClassifier):
        """Goes on as if nothing stood before: what a wrong mask or position does."""

        def go_on(self, prefix: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self(input_ids, attention_mask)

    model = Forgetful(classifier(LlamaConfig(**SHAPE)).model, "decoder").eval()
    assert "standard deviations apart" in str(obstacle_to_reuse(model))
