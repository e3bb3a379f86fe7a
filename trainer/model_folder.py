"""Writes what a phase has trained: a Hugging Face folder with the tokenizer it started with and palate.json."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from palate.models.folder import FolderError, ModelFolder
from palate.models.manifest import Manifest, check_length, write_manifest
from trainer.written import written

_WEIGHTS = "model.safetensors"

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)


def load_causal_model(folder: Path) -> Any:
    """The causal language model of a folder, float32; from safetensors alone, nothing is downloaded.

    Raises:
        FolderError: There is none, or it lacks weights.
    """
    from transformers import AutoModelForCausalLM

    _ = ModelFolder(folder).checkpoint  # said in our words; transformers would look for the name on the hub
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise FolderError(f"transformers cannot load {folder} as a causal language model: {error}") from error
    model, report = loaded
    if missing := sorted(map(str, report["missing_keys"])):
        raise FolderError(f"{folder} lacks weights that would be made up at random: {', '.join(missing[:5])}")
    return model


def length_limit(folder: Path, asked: int, manifest: Manifest) -> int:
    """The longest sequence to learn from: `asked`, or the manifest's where it is 0.

    Raises:
        ManifestError: It is beyond the model's positions.
    """
    check_length(ModelFolder(folder), asked)
    return asked or manifest.max_tokens


def save_model_folder(model: Any, tokenizer_folder: Path, manifest: Manifest, folder: Path) -> Path:
    """Writes `folder` in one move; an older one is replaced at the end.

    Args:
        model: A transformers model; weights go into safetensors.
        tokenizer_folder: Its tokenizer's files are copied byte by byte, so that its digest stays the same.
        manifest: How the model is to be used.
        folder: Where it goes.

    Raises:
        NotWritten: There is no room; an older folder stays.
    """
    with replaced_folder(folder) as draft:
        with written(folder / _WEIGHTS):
            model.save_pretrained(draft)
        copy_tokenizer(tokenizer_folder, draft)
        write_manifest(draft, manifest)
    return folder


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes the place of `folder` in one move, and goes where that fails.

    Raises:
        NotWritten: There is no room; `folder` is as it was.
    """
    draft = folder.with_name(folder.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with written(folder):
            draft.mkdir(parents=True)
            yield draft
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)  # on a full disk, what is half written is what is in the way
        raise
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copies tokenizer and chat template."""
    target.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
