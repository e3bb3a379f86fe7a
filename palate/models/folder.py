"""What a Hugging Face model folder says about itself, read without loading the model."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from palate.file_errors import cause_of

INDEX_NAME = "model.safetensors.index.json"
"""Says which tensor is in which file, where a checkpoint is cut into several."""

_MAX_HEADER_BYTES = 100 * 1024 * 1024
"""The bound that the safetensors format sets on its own header."""

_NO_LENGTH_LIMIT = 10**9
"""transformers writes about 1e30 as `model_max_length` where a tokenizer has no limit."""

_WITHOUT_SEGMENTS = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Tokenizer classes of transformers that give no `token_type_ids` unless the configuration asks for them."""

_READ_BYTES = 1 << 20

_PICKLED = "pytorch_model*.bin"
"""Names of checkpoints that torch pickled."""


class FolderError(Exception):
    """A model folder cannot be used; the message says what is wrong with it and what to do."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor as a safetensors header describes it.

    Attributes:
        file: The file that holds it.
        begin: First byte of its data, counted from the file's start.
        end: The byte after its last.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    begin: int
    end: int


class ModelFolder:
    """Reads the files of a model folder lazily; every problem is a `FolderError`."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise FolderError(f"{self.path} is not a folder; give the folder that holds config.json and the weights")

    @cached_property
    def config(self) -> dict[str, Any]:
        """`config.json`."""
        return self._json("config.json")

    @cached_property
    def tokenizer_config(self) -> dict[str, Any]:
        """`tokenizer_config.json`; empty where there is none."""
        return self._json("tokenizer_config.json") if self.has("tokenizer_config.json") else {}

    @cached_property
    def tokenizer(self) -> dict[str, Any]:
        """`tokenizer.json`."""
        if not self.has("tokenizer.json"):
            raise FolderError(
                f"{self.path} has no tokenizer.json; write one with "
                "transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
            )
        return self._json("tokenizer.json")

    @cached_property
    def chat_template(self) -> str | None:
        """The chat template; where the folder names several, the one called "default"."""
        file = self.path / "chat_template.jinja"
        if file.is_file():
            return file.read_text(encoding="utf-8")
        template = self.tokenizer_config.get("chat_template")
        if isinstance(template, list):
            named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
            template = named.get("default")
        return template if isinstance(template, str) else None

    @cached_property
    def checkpoint(self) -> tuple[Path, ...]:
        """The safetensors files that transformers would load: model.safetensors, or what its index names."""
        names = ["model.safetensors"]
        if not self.has(names[0]) and self.has(INDEX_NAME):
            names = sorted(set(self._json(INDEX_NAME).get("weight_map", {}).values()))
        if missing := [name for name in names if not self.has(name)]:
            told = f"{self.path} lacks {', '.join(missing)}; {self._elsewhere() or 'copy it again'}"
            raise FolderError(self._pickled_problem() or told)
        return tuple(self.path / name for name in names)

    def _elsewhere(self) -> str:
        """Which other folder is perhaps meant; empty where nothing speaks for one."""
        if (self.path / "model" / "config.json").is_file():
            return f"give {self.path / 'model'}"
        names_others = self.has("palate.json") and self._json("palate.json").get("kind") == "ensemble"
        return "it is an ensemble, which only names its members: give one of them" if names_others else ""

    def _pickled_problem(self) -> str:
        """What to do where the weights are there, but pickled; empty where there are none."""
        pickled = sorted(file.name for file in self.path.glob(_PICKLED))
        if not pickled or self.has(INDEX_NAME):
            return ""
        (architecture, *_) = self.config.get("architectures") or ["AutoModel"]
        return (
            f"{self.path} has its weights in {pickled[0]} and none in safetensors. Pickled weights are never loaded, "
            "because a pickle can run any code. Where you trust the file, convert it once (with torch and "
            # Offline: online, transformers would ask the hub to convert the folder, and wait for it.
            f"transformers): python -c \"import os; os.environ['HF_HUB_OFFLINE'] = '1'; import transformers as t; "
            f"f = '{self.path}'; t.{architecture}.from_pretrained(f).save_pretrained(f)\""
        )

    @cached_property
    def tensors(self) -> dict[str, StoredTensor]:
        """Every tensor of the checkpoint by name, from the headers of its safetensors files alone."""
        return {tensor.name: tensor for file in self.checkpoint for tensor in _stored_tensors(file)}

    @property
    def pad_token_id(self) -> int | None:
        """The pad id that transformers' heads search for; None where config.json names none."""
        value = self.text_config.get("pad_token_id", self.config.get("pad_token_id"))
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None

    @property
    def text_config(self) -> dict[str, Any]:
        """The language part of the configuration: `text_config` where there is one, else all of it."""
        inner = self.config.get("text_config")
        return inner if isinstance(inner, dict) else self.config

    @property
    def has_segments(self) -> bool:
        """Whether the model is told which of two texts a token belongs to (`token_type_ids`)."""
        names = self.tokenizer_config.get("model_input_names")
        if isinstance(names, list):
            told = "token_type_ids" in names
        else:
            told = self.tokenizer_config.get("tokenizer_class") not in _WITHOUT_SEGMENTS
        return told and int(self.text_config.get("type_vocab_size") or 0) > 1

    def has(self, name: str) -> bool:
        """Whether the folder holds that file."""
        return (self.path / name).is_file()

    def special_token(self, role: str) -> str | None:
        """The text of a special token, e.g. role "bos_token", as the tokenizer's configuration names it."""
        sources = [self.tokenizer_config]
        if self.has("special_tokens_map.json"):
            sources.append(self._json("special_tokens_map.json"))
        for source in sources:
            value = source.get(role)
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str) and value:
                return value
        return None

    def length_limit(self) -> int | None:
        """The longest input in tokens that positions and tokenizer allow; None where nothing says."""
        limits = [self.position_limit(), self.tokenizer_config.get("model_max_length")]
        known = [int(limit) for limit in limits if isinstance(limit, (int, float)) and 0 < limit < _NO_LENGTH_LIMIT]
        return min(known, default=None)

    def position_limit(self) -> int | None:
        """How many tokens have a position in the model; None where config.json sets no bound."""
        config = self.text_config
        for key in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
            if isinstance(positions := config.get(key), int):
                # RoBERTa and its kin number their positions from pad_token_id + 1.
                first = (self.pad_token_id or 0) + 1 if "roberta" in str(config.get("model_type")) else 0
                return positions - first
        return None

    def _json(self, name: str) -> dict[str, Any]:
        file = self.path / name
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise FolderError(f"{self.path} has no {name}; is it the folder of a Hugging Face model?") from error
        except (OSError, ValueError, RecursionError) as error:
            raise FolderError(f"{file} cannot be read as JSON: {cause_of(error)}") from error
        if not isinstance(value, dict):
            raise FolderError(f"{file} holds no JSON object")
        return value


def tensor_sha256(tensor: StoredTensor) -> str:
    """SHA-256 of a stored tensor's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.begin)
        left = tensor.end - tensor.begin
        while left > 0:
            data = stream.read(min(left, _READ_BYTES))
            if not data:
                raise FolderError(f"{tensor.file} ends inside {tensor.name}; copy the folder again")
            digest.update(data)
            left -= len(data)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _stored_tensors(file: Path) -> Iterator[StoredTensor]:
    """Reads a safetensors header: eight bytes of length, then JSON; the data begin after it."""
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(_MAX_HEADER_BYTES, size):
                raise ValueError("the header is longer than the file")
            header = json.loads(stream.read(length))
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = (8 + length + offset for offset in entry["data_offsets"])
                if not 8 <= begin <= end <= size:
                    raise ValueError(f"{name} lies outside of the file")
                yield StoredTensor(name, entry["dtype"], tuple(entry["shape"]), file, begin, end)
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FolderError(f"{file} is not a whole safetensors file ({error}); copy it again") from error
