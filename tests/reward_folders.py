"""Texts to score, and changes to model folders, for the tests of rendering and of the reward service."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.tiny_models import make_tiny_reward

SENTENCE = (
    "what do you think of my business idea it is an honest plan and the costs come before customers reward model reads "
    "prompt completion policy writes one token after other once upon time there was little girl who liked play park"
)


def texts(count: int, seed: int = 0, longest: int = 40) -> list[tuple[str, str]]:
    """(prompt, completion) pairs of mixed length in made-up sentences."""
    draw, words = random.Random(seed), SENTENCE.split()

    def sentence(most: int) -> str:
        return " ".join(draw.choice(words) for _ in range(draw.randint(1, most))) + draw.choice([".", "!", "?", " -"])

    return [(sentence(max(1, longest // 3)), sentence(longest)) for _ in range(count)]


def change_json(file: Path, **changes: Any) -> None:
    """Sets keys of a JSON file; None removes one."""
    document = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))


def make_bert(folder: Path, **options: Any) -> Path:
    """A tiny encoder that tells segments apart, as BERT's own tokenizer does."""
    make_tiny_reward(folder, "encoder", options.pop("seed", 0), max_tokens=128, **options)
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    change_json(folder / "tokenizer_config.json", model_input_names=inputs)
    return folder


def make_llama(folder: Path, *, chat_template: str | None = "", pad_in_config: bool = True, **options: Any) -> Path:
    """A tiny decoder; `chat_template` "" keeps the usual one, None leaves it out."""
    make_tiny_reward(folder, "decoder", options.pop("seed", 0), chat=chat_template == "", **options)
    if chat_template:
        (folder / "chat_template.jinja").write_text(chat_template)
    if not pad_in_config:
        change_json(folder / "config.json", pad_token_id=None)
    return folder
