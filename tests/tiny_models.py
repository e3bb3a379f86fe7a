"""Tiny random models with real tokenizers, written as Hugging Face folders; the same seed gives the same bytes."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from tests.tiny_tokenizers import BOS, CHAT_TEMPLATE, EOS, PAD, byte_tokenizer, word_tokenizer


def make_tiny_policy(
    folder: Path | str,
    seed: int,
    *,
    chat: bool = False,
    bos_is_eos: bool = False,
    tied: bool = True,
    dtype: torch.dtype = torch.float32,
    max_tokens: int = 256,
) -> Path:
    """A random Llama of about 30 000 parameters with a byte-level BPE tokenizer; returns `folder`.

    Args:
        folder: Where it is written; made if missing.
        seed: Of the weights; the tokenizer is always the same.
        chat: Give the tokenizer a chat template.
        bos_is_eos: Use one token for both, as the stories models do.
        tied: Share input and output embeddings.
        dtype: Of the stored weights.
        max_tokens: Longest sequence.
    """
    tokenizer = byte_tokenizer()
    eos = BOS if bos_is_eos else EOS
    config = _llama_config(tokenizer, max_tokens, eos, tie_word_embeddings=tied)
    _save(LlamaForCausalLM, config, seed, folder, dtype)
    _save_tokenizer(tokenizer, folder, eos, CHAT_TEMPLATE if chat else None, max_tokens)
    return Path(folder)


def make_tiny_gpt2(folder: Path | str, seed: int, *, max_tokens: int = 256) -> Path:
    """A random GPT-2 with the tokenizer of `make_tiny_policy`: learnt positions, dropout, a class of another name."""
    tokenizer = byte_tokenizer()
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(),
        n_positions=max_tokens,
        n_embd=32,
        n_layer=2,
        n_head=4,
        initializer_range=0.3,
        bos_token_id=tokenizer.token_to_id(BOS),
        eos_token_id=tokenizer.token_to_id(EOS),
        pad_token_id=tokenizer.token_to_id(PAD),
    )
    _save(GPT2LMHeadModel, config, seed, folder, torch.float32)
    _save_tokenizer(tokenizer, folder, EOS, None, max_tokens)
    return Path(folder)


def make_tiny_reward(
    folder: Path | str,
    architecture: str,
    seed: int,
    *,
    chat: bool = False,
    pad_is_eos: bool = False,
    num_labels: int = 1,
    max_tokens: int = 256,
    padding_side: str = "right",
) -> Path:
    """A random sequence classifier; returns `folder`.

    Args:
        folder: Where it is written; made if missing.
        architecture: "encoder" (BERT with WordPiece) or "decoder" (Llama with byte-level BPE).
        seed: Of the weights; the tokenizers are always the same.
        chat: Give a decoder's tokenizer a chat template.
        pad_is_eos: Let a decoder pad with its end-of-sequence token.
        num_labels: Outputs of the head.
        max_tokens: Longest sequence.
        padding_side: As the tokenizer's configuration shall say.
    """
    if architecture == "encoder":
        return _make_encoder(folder, seed, num_labels, max_tokens, padding_side)
    if architecture != "decoder":
        raise ValueError(f"architecture is {architecture!r}; it can be encoder or decoder")
    tokenizer = byte_tokenizer()
    config = _llama_config(tokenizer, max_tokens, EOS, num_labels=num_labels)
    pad = EOS if pad_is_eos else PAD
    config.pad_token_id = tokenizer.token_to_id(pad)
    _save(LlamaForSequenceClassification, config, seed, folder, torch.float32)
    template = CHAT_TEMPLATE if chat else None
    _save_tokenizer(tokenizer, folder, EOS, template, max_tokens, pad=pad, padding_side=padding_side)
    return Path(folder)


def _llama_config(tokenizer: Tokenizer, max_tokens: int, eos: str, **more: object) -> LlamaConfig:
    # A wide initialisation: with the usual 0.02 all tokens would be equally likely and every score nearly zero.
    return LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=max_tokens,
        initializer_range=0.3,
        bos_token_id=tokenizer.token_to_id(BOS),
        eos_token_id=tokenizer.token_to_id(eos),
        pad_token_id=tokenizer.token_to_id(PAD),
        **more,
    )


def _make_encoder(folder: Path | str, seed: int, num_labels: int, max_tokens: int, padding_side: str) -> Path:
    tokenizer = word_tokenizer()
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=max_tokens,
        initializer_range=0.2,
        pad_token_id=0,
        num_labels=num_labels,
    )
    _save(BertForSequenceClassification, config, seed, folder, torch.float32)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=max_tokens,
        padding_side=padding_side,
    ).save_pretrained(folder)
    return Path(folder)


def _save(model_class: type, config: object, seed: int, folder: Path | str, dtype: torch.dtype) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config)
    model.to(dtype).save_pretrained(folder, safe_serialization=True)


def _save_tokenizer(
    tokenizer: Tokenizer,
    folder: Path | str,
    eos: str,
    chat_template: str | None,
    max_tokens: int,
    *,
    pad: str = PAD,
    padding_side: str = "right",
) -> None:
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=eos,
        pad_token=pad,
        unk_token="<unk>",
        model_max_length=max_tokens,
        padding_side=padding_side,
    )
    wrapped.chat_template = chat_template
    wrapped.save_pretrained(folder)
