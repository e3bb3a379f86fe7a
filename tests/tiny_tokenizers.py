"""Real tokenizers, tiny and always the same, made without torch and transformers."""

import re

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

BOS, EOS, PAD = "<s>", "</s>", "<pad>"

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '[' + message['role'] + '] ' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"
)

_TEXT = (
    "What do you think of my business idea? It is an honest plan, and the costs come before the customers do.",
    "The reward model reads the prompt and the completion; the policy writes one token after the other.",
    "Once upon a time there was a little girl who liked to play in the park with her friends and her dog.",
    "A careful answer names a number, says how sure it is, and ends where there is nothing left to say.",
)


def byte_tokenizer() -> Tokenizer:
    """Byte-level BPE with <s> before every text, so that any text has ids and comes back from them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<unk>", BOS, EOS, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    bos = (BOS, tokenizer.token_to_id(BOS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[bos]
    )
    return tokenizer


def word_tokenizer() -> Tokenizer:
    """WordPiece as BERT has it, over the words of a few sentences and every sign."""
    tokenizer = Tokenizer(models.WordPiece(vocab=_word_pieces(), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return tokenizer


def _word_pieces() -> dict[str, int]:
    """Written by hand: the library's WordPiece trainer gives another vocabulary in every process."""
    words = sorted({word for line in _TEXT for word in re.findall(r"[a-z]+", line.lower())})
    signs = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *signs, *(f"##{sign}" for sign in signs), *words]
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
