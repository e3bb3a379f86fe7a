"""Writes what a phase has trained: a Hugging Face folder with the tokenizer it started with and palate.json."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from palate.models.manifest import Manifest, write_manifest

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)


def save_model_folder(model: Any, tokenizer_folder: Path, manifest: Manifest, folder: Path) -> Path:
    """Writes `folder` in one move; an older one is replaced at the end.

    Args:
        model: A transformers model; weights go into safetensors.
        tokenizer_folder: Its tokenizer's files are copied byte by byte, so that its digest stays the same.
        manifest: How the model is to be used.
        folder: Where it goes.
    """
    draft = folder.with_name(folder.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    model.save_pretrained(draft)
    copy_tokenizer(tokenizer_folder, draft)
    write_manifest(draft, manifest)
    shutil.rmtree(folder, ignore_errors=True)
    return draft.rename(folder)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copies tokenizer and chat template."""
    target.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
