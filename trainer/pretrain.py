"""A small base model from nothing but plain text: a byte-level BPE tokenizer and a Llama that continues text.

Documents are separated by the beginning-of-sequence token alone. The end-of-sequence token and the tokens of the chat
template first appear in fine-tuning, which is why a base model continues where a fine-tuned one answers and stops.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from palate.models.manifest import Manifest
from trainer.data.lines import DataError, read_rows
from trainer.fit import Batch, FitRow, Fitted, Task, fit, prepare_process
from trainer.fit_config import FitConfig
from trainer.model_folder import save_model_folder
from trainer.run_folder import begin_run

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
USER, ASSISTANT = "<|user|>", "<|assistant|>"

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<|user|>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<|assistant|>' }}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ raise_exception('this model knows the roles user and assistant') }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


class PretrainConfig(FitConfig):
    """Trains a small base model and its tokenizer on plain text."""

    model_config = SettingsConfigDict(env_prefix="PALATE_TRAIN_")

    documents: Path = Field(description='JSONL file, one {"text": "..."} a line.')
    vocabulary: int = Field(default=1024, ge=300, description="Pieces of the tokenizer.")
    hidden_size: int = Field(default=128, ge=8, description="Width of the model.")
    layers: int = Field(default=4, ge=1, description="Its depth.")
    heads: int = Field(default=4, ge=1, description="Attention heads; must divide the width.")
    block_tokens: int = Field(default=128, ge=8, description="Tokens of running text in one row.")
    max_tokens: int = Field(default=256, ge=8, description="Longest sequence the model shall ever read.")
    learning_rate: float = Field(default=4e-3, gt=0, description="Peak of the learning rate (AdamW).")
    batch_size: int = Field(default=16, ge=1, description="Rows a step.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of 2 x heads, here {2 * self.heads}")
        if self.block_tokens > self.max_tokens:
            raise ValueError(f"block_tokens {self.block_tokens} is more than max_tokens {self.max_tokens}")
        return self


@dataclass(frozen=True, slots=True)
class PretrainResult:
    """What pretraining has made: the base model's folder, steps and loss, tokens of text, parameters."""

    model_folder: Path
    fitted: Fitted
    tokens: int
    parameters: int


def run_pretrain(config: PretrainConfig) -> PretrainResult:
    """Trains tokenizer and model, and writes the base model.

    Raises:
        DataError: The documents cannot be used, or are shorter than one row.
        RunFolderError: The folder of the run holds another run.
        FitError: The loss is no longer finite.
    """
    prepare_process(config)
    texts = [row.text("text") for row in read_rows(config.documents)]
    with begin_run(config) as writer:
        tokenizer = train_tokenizer(texts, config.vocabulary)
        save_tokenizer(tokenizer, config.out / "tokenizer", config.max_tokens)
        rows = packed(tokenizer, texts, config.block_tokens)
        model = LlamaForCausalLM(_llama(config, tokenizer))
        fitted = fit(Task("base", model, rows, (), collate, next_token_loss), config, writer)
        manifest = Manifest("policy", "decoder", "chat", add_bos=False, add_eos=False, max_tokens=config.max_tokens)
        folder = save_model_folder(model, config.out / "tokenizer", manifest, config.out / "model")
        return PretrainResult(folder, fitted, len(rows) * config.block_tokens, model.num_parameters())


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Byte-level BPE: any text has ids, and comes back from them; the same texts give the same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS, USER, ASSISTANT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    begin = (BOS, tokenizer.token_to_id(BOS))
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[begin])
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, max_tokens: int) -> None:
    """Writes the tokenizer as Hugging Face's files, with the chat template."""
    wrapper: Any = PreTrainedTokenizerFast
    wrapped = wrapper(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, model_max_length=max_tokens
    )
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)


def packed(tokenizer: Tokenizer, texts: Sequence[str], block_tokens: int) -> list[FitRow]:
    """Running text in rows of exactly `block_tokens`; what is left over at the end is not used.

    Raises:
        DataError: There is less than one row.
    """
    begin = tokenizer.token_to_id(BOS)
    encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    ids = [token for encoding in encodings for token in (begin, *encoding.ids)]
    starts = range(0, len(ids) - block_tokens + 1, block_tokens)
    if not starts:
        raise DataError(f"the documents have {len(ids)} tokens, less than one row of {block_tokens}; give more text")
    return [{"input_ids": ids[start : start + block_tokens]} for start in starts]


def collate(rows: list[FitRow]) -> Batch:
    """(B, T) ids of equally long rows."""
    return {"input_ids": torch.tensor([row["input_ids"] for row in rows])}


def next_token_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy in nats of every token given those before it; a scalar."""
    logits = model(input_ids=batch["input_ids"], use_cache=False).logits[:, :-1]  # (B, T-1, V)
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch["input_ids"][:, 1:].flatten())


def _llama(config: PretrainConfig, tokenizer: Tokenizer) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=config.hidden_size,
        intermediate_size=config.hidden_size * 8 // 3,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        max_position_embeddings=config.max_tokens,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.token_to_id(BOS),
        eos_token_id=tokenizer.token_to_id(EOS),
        pad_token_id=tokenizer.token_to_id(PAD),
    )
