"""Random models wide enough that computing dominates, and texts whose lengths are the same in every run."""

from __future__ import annotations

import itertools
from pathlib import Path
from random import Random
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

PAD, UNKNOWN, BEGIN, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
WORDS = tuple(map("".join, itertools.product(("ba", "de", "gi", "lo", "mu", "na", "pe", "ri", "so", "tu"), repeat=3)))
"""A thousand words, each one token."""

_VOCABULARY = {token: index for index, token in enumerate((PAD, UNKNOWN, BEGIN, END, *WORDS))}

_MAX_TOKENS = 512
_SHAPE: dict[str, Any] = {
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
}
"""That of the small sentence encoders in wide use."""


def make_encoder(folder: Path) -> Path:
    """A BERT with one score; returns `folder`."""
    config = BertConfig(vocab_size=len(_VOCABULARY), max_position_embeddings=_MAX_TOKENS, **_SHAPE)
    config.num_labels = 1
    _save(BertForSequenceClassification, config, folder)
    _save_tokenizer(folder, single=f"{BEGIN} $A {END}", pair=f"{BEGIN} $A {END} $B:1 {END}:1")
    return folder


def make_policy(folder: Path) -> Path:
    """A Llama; returns `folder`."""
    config = LlamaConfig(
        vocab_size=len(_VOCABULARY),
        max_position_embeddings=_MAX_TOKENS,
        pad_token_id=_VOCABULARY[PAD],
        bos_token_id=_VOCABULARY[BEGIN],
        eos_token_id=_VOCABULARY[END],
        **_SHAPE,
    )
    _save(LlamaForCausalLM, config, folder)
    _save_tokenizer(folder, single=f"{BEGIN} $A", pair=f"{BEGIN} $A $B:1")
    return folder


def texts(count: int, shortest: int, longest: int, number: int) -> list[str]:
    """Texts of `shortest` to `longest` words; another number gives other words, so that no answer can be remembered.

    The lengths are spread evenly on a logarithmic scale and stand in an order that is the same for every number.
    """
    lengths = [round(shortest * (longest / shortest) ** (place / (count - 1))) for place in range(count)]
    Random(0).shuffle(lengths)
    rng = Random(number)
    return [" ".join(rng.choices(WORDS, k=length)) for length in lengths]


def _save(model_class: Any, config: Any, folder: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(config)
    model.save_pretrained(folder)


def _save_tokenizer(folder: Path, *, single: str, pair: str) -> None:
    tokenizer = Tokenizer(models.WordLevel(_VOCABULARY, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(token, _VOCABULARY[token]) for token in (BEGIN, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ends)
    wrapper: Any = PreTrainedTokenizerFast
    wrapped = wrapper(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        cls_token=BEGIN,
        sep_token=END,
        bos_token=BEGIN,
        eos_token=END,
        model_max_length=_MAX_TOKENS,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    wrapped.save_pretrained(folder)
