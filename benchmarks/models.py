"""Random models wide enough that computing dominates, and texts in a language of a thousand words for them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as hf_logging

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

_RANKER_SHAPE: dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
}
"""28 million parameters."""

_LARGE_SHAPE: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 14,
    "num_attention_heads": 12,
}
"""100 million parameters."""

_STORY_SHAPES: dict[str, dict[str, Any]] = {
    "260k": {
        "vocab_size": 1004,
        "hidden_size": 64,
        "intermediate_size": 172,
        "num_hidden_layers": 5,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    },
    "15m": {
        "vocab_size": 32_000,
        "hidden_size": 288,
        "intermediate_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
    },
}
"""Those of the small story tellers in wide use, by their parameters."""

_STORIES_VOCABULARY = dict(itertools.islice(_VOCABULARY.items(), 512))

_STORIES_SHAPE = {**_STORY_SHAPES["260k"], "vocab_size": len(_STORIES_VOCABULARY), "tie_word_embeddings": True}
"""That of stories260K to the last parameter."""

STORIES_WORDS = tuple(word for word in WORDS if word in _STORIES_VOCABULARY)
"""What models of that shape read."""

_TINY: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.2,
}
"""Computes next to nothing: for trying a measurement, never for a figure."""

_RANKER_TOKENS = 1024


def make_encoder(folder: Path, *, corpus: Sequence[str] = (), tiny: bool = False) -> Path:
    """A BERT with one score; returns `folder`.

    Args:
        folder: Where it is written.
        corpus: Texts like those it will read, for its tokenizer; none = it reads `WORDS`.
        tiny: Compute next to nothing.
    """
    shape = _TINY if tiny else _SHAPE
    config = BertConfig(vocab_size=len(_VOCABULARY), max_position_embeddings=_MAX_TOKENS, **shape)
    config.num_labels = 1
    _seeded(BertForSequenceClassification, config).save_pretrained(folder)
    tokenizer = _learnt(corpus) if corpus else None
    _save_tokenizer(folder, single=f"{BEGIN} $A {END}", pair=f"{BEGIN} $A {END} $B:1 {END}:1", tokenizer=tokenizer)
    return folder


def make_ranker(folder: Path, *, tiny: bool = False) -> Path:
    """A Llama with one score per text, of standard deviation 1 over texts of `WORDS`; returns `folder`."""
    config = _llama(_TINY if tiny else _RANKER_SHAPE, _RANKER_TOKENS)
    config.num_labels = 1
    model = _seeded(LlamaForSequenceClassification, config)
    _scale_head(model)
    model.save_pretrained(folder)
    _save_tokenizer(folder, single=f"{BEGIN} $A", pair=f"{BEGIN} $A $B:1", max_tokens=_RANKER_TOKENS)
    return folder


def make_stories(folder: Path) -> tuple[Path, Path]:
    """A policy and a reward model, both of stories260K's shape and with one tokenizer; returns their folders.

    A text that the policy writes is as many tokens for the reward model, special ones apart.
    """
    config = _llama(_STORIES_SHAPE, _MAX_TOKENS)
    config.num_labels = 1
    kinds = {"policy": LlamaForCausalLM, "reward": LlamaForSequenceClassification}
    for name, model_class in kinds.items():
        _seeded(model_class, config).save_pretrained(folder / name)
        _save_tokenizer(
            folder / name, single=f"{BEGIN} $A", pair=f"{BEGIN} $A $B:1", tokenizer=_words(_STORIES_VOCABULARY)
        )
    return folder / "policy", folder / "reward"


def make_policy(folder: Path, *, tiny: bool = False) -> Path:
    """A Llama; returns `folder`."""
    return _make_policy(folder, _TINY if tiny else _SHAPE)


def make_story_policy(folder: Path, shape: str, *, tiny: bool = False) -> Path:
    """A Llama in the shape of a story teller, "260k" or "15m" parameters; returns `folder`."""
    return _make_policy(folder, _TINY if tiny else _STORY_SHAPES[shape])


def make_large_policy(folder: Path, *, tiny: bool = False) -> Path:
    """A Llama of 100 million parameters; returns `folder`."""
    return _make_policy(folder, _TINY if tiny else _LARGE_SHAPE)


def _make_policy(folder: Path, shape: dict[str, Any]) -> Path:
    _seeded(LlamaForCausalLM, _llama(shape, _MAX_TOKENS)).save_pretrained(folder)
    _save_tokenizer(folder, single=f"{BEGIN} $A", pair=f"{BEGIN} $A $B:1")
    return folder


def texts(count: int, shortest: int, longest: int, number: int, words: Sequence[str] = WORDS) -> list[str]:
    """Texts of `shortest` to `longest` words; another number gives other words, so that no answer can be remembered.

    The lengths are spread evenly on a logarithmic scale and stand in an order that is the same for every number.
    """
    lengths = [round(shortest * (longest / shortest) ** (place / (count - 1))) for place in range(count)]
    Random(0).shuffle(lengths)
    rng = Random(number)
    return [" ".join(rng.choices(words, k=length)) for length in lengths]


def _llama(shape: dict[str, Any], max_tokens: int) -> Any:
    return LlamaConfig(
        **{"vocab_size": len(_VOCABULARY), **shape},
        max_position_embeddings=max_tokens,
        pad_token_id=_VOCABULARY[PAD],
        bos_token_id=_VOCABULARY[BEGIN],
        eos_token_id=_VOCABULARY[END],
    )


def _seeded(model_class: Any, config: Any) -> Any:
    hf_logging.disable_progress_bar()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model_class(config).eval()


@torch.inference_mode()
def _scale_head(model: Any) -> None:
    """So that differences between scores can be given in standard deviations as they are."""
    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(_VOCABULARY[WORDS[0]], len(_VOCABULARY), (32, 128), generator=draws)
    model.score.weight.data /= model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.std()


def _save_tokenizer(
    folder: Path, *, single: str, pair: str, max_tokens: int = _MAX_TOKENS, tokenizer: Tokenizer | None = None
) -> None:
    tokenizer = tokenizer or _words(_VOCABULARY)
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
        model_max_length=max_tokens,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    wrapped.save_pretrained(folder)


def _words(vocabulary: Mapping[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(dict(vocabulary), unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def _learnt(corpus: Sequence[str]) -> Tokenizer:
    """Byte pairs, as many as there are words in the other vocabulary, with the special tokens at the same ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=len(_VOCABULARY),
        special_tokens=[PAD, UNKNOWN, BEGIN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer
