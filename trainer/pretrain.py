"""A small base model from nothing but plain text: a byte-level BPE tokenizer and a Llama that continues text.

Each document is a row of its own and begins with the beginning-of-sequence token. The end-of-sequence token and the
tokens of the chat template first appear in fine-tuning, which is why a base model continues where a fine-tuned one
answers and stops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from palate.models.manifest import Manifest
from trainer.data.lines import DataError, read_rows
from trainer.fit import FitRow, Fitted, Task, fit, prepare_process
from trainer.model_folder import save_model_folder
from trainer.pretrain_config import PretrainConfig
from trainer.run_folder import begin_run, check_folder
from trainer.sft import collator, completion_loss
from trainer.tokenizer import BOS, EOS, PAD, save_tokenizer, train_tokenizer


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
        DataError: The documents cannot be used.
        RunFolderError: The folder of the run holds another run.
        FitError: The loss is no longer finite.
    """
    prepare_process(config)
    check_folder(config)
    texts = [row.text("text") for row in read_rows(config.documents)]
    tokenizer = train_tokenizer([*texts, *_further_texts(config)], config.vocabulary)
    rows = document_rows(tokenizer, texts, config.block_tokens)
    with begin_run(config) as writer:
        save_tokenizer(tokenizer, config.out / "tokenizer", config.max_tokens)
        model = LlamaForCausalLM(_llama(config, tokenizer))
        task = Task("base", model, rows, (), collator(tokenizer.get_vocab()[PAD]), completion_loss)
        fitted = fit(task, config, writer)
        manifest = Manifest("policy", "decoder", "chat", add_bos=False, add_eos=False, max_tokens=config.max_tokens)
        folder = save_model_folder(model, config.out / "tokenizer", manifest, config.out / "model")
        return PretrainResult(folder, fitted, sum(len(row["input_ids"]) for row in rows), model.num_parameters())


def document_rows(tokenizer: Tokenizer, texts: Sequence[str], block_tokens: int) -> list[FitRow]:
    """One row per document, so that every token sees what its document is about; long ones in several rows.

    Raises:
        DataError: No document has two tokens.
    """
    documents = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]  # each begins with BOS
    pieces = [ids[start : start + block_tokens] for ids in documents for start in range(0, len(ids), block_tokens)]
    rows: list[FitRow] = [{"input_ids": piece, "labels": piece} for piece in pieces if len(piece) > 1]
    if not rows:
        raise DataError("no document has a token to learn; give more text")
    return rows


def _further_texts(config: PretrainConfig) -> list[str]:
    if config.tokenizer_texts is None:
        return []
    keys = ("text", "prompt", "completion")
    return [row.text(key) for row in read_rows(config.tokenizer_texts) for key in keys if key in row.values]


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
