"""`palate.json`: what a model folder means, beyond what Hugging Face files say, and the digests that name it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from palate.models.document import FILE_NAME, ManifestError, complaints_of, read_document, shown, write_document
from palate.models.folder import ModelFolder, StoredTensor, tensor_sha256
from palate.models.foreign import Inferred, classifier_head, guess_manifest, label_count
from palate.models.manifest_fields import (
    FIELDS,
    Architecture,
    Kind,
    Precision,
    Table,
    TemplateKind,
    Truncation,
    built,
    check_fields,
    listed,
)
from palate.models.weights import TensorEntry, weights_digest

__all__ = [
    "Calibration",
    "Digests",
    "LoadedManifest",
    "Manifest",
    "ManifestError",
    "OnnxExport",
    "Precision",
    "TemplateKind",
    "Truncation",
    "build",
    "check_length",
    "digest_folder",
    "digest_of",
    "load_manifest",
    "said_by",
    "template_digest",
    "tokenizer_digest",
    "write_manifest",
]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Mean and standard deviation of the raw score over the model's reference samples."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        check_fields(self, FIELDS, "calibration.")


@dataclass(frozen=True, slots=True)
class OnnxExport:
    """Binds model.onnx to the weights it was made from, so that one revision names both."""

    sha256: str
    weights_digest: str
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_fields(self, FIELDS, "onnx.")


@dataclass(frozen=True, slots=True)
class Manifest:
    """How a model is to be used; `manifest_fields` says what each field means and may be."""

    kind: Kind
    architecture: Architecture
    template_kind: TemplateKind
    add_bos: bool
    add_eos: bool
    max_tokens: int
    truncation: Truncation = "reject"
    score_index: int | None = None
    score_weights: tuple[float, ...] = ()
    member_labels: tuple[int, ...] = ()
    logit_scale: float = 1.0
    calibration: Calibration | None = None
    onnx: OnnxExport | None = None

    def __post_init__(self) -> None:
        check_fields(self, FIELDS)
        encoder = self.architecture == "encoder"
        _check_fit(self, "kind", encoder and self.kind == "policy", 'expected "reward": a policy is a decoder')
        for name in ("add_bos", "add_eos"):
            ruled = encoder and getattr(self, name)
            _check_fit(self, name, ruled, "expected false: an encoder's tokenizer places the special tokens")
        pair = not encoder and self.template_kind == "pair"
        _check_fit(self, "template_kind", pair, 'expected "chat" or "join": pairs are for encoders')
        readings = [name for name in _READINGS if getattr(self, name) not in (None, ())]
        if len(readings) > 1:
            raise ManifestError(f"{' and '.join(readings)} are given; expected one of them, not both")


@dataclass(frozen=True, slots=True)
class LoadedManifest:
    """A manifest, and what of it was assumed because the folder does not say."""

    manifest: Manifest
    inferred: tuple[Inferred, ...]


@dataclass(frozen=True, slots=True)
class Digests:
    """SHA-256 names, hexadecimal.

    Attributes:
        weights: The checkpoint's tensors, however they are spread over files.
        tokenizer: tokenizer.json without its padding and truncation, which we never use.
        template: Chat template, special-token rule, lengths and how the score is read.
        revision: All of these with calibration and logit scale: the one name of what is served.
    """

    weights: str
    tokenizer: str
    template: str
    revision: str


def load_manifest(path: Path | str, overrides: Mapping[str, Any] | None = None) -> LoadedManifest:
    """Reads `palate.json`, or infers it from the Hugging Face files.

    Args:
        path: The model folder.
        overrides: Fields that the caller knows better than the folder.

    Raises:
        FolderError: The folder is no usable model: files missing or broken, classifier head not in the checkpoint,
            several labels and nothing that says which is the score.
    """
    folder, known = ModelFolder(path), dict(overrides or {})
    inferred: tuple[Inferred, ...] = ()
    if folder.has(FILE_NAME):
        manifest = replace(_parse(folder), **known)
    else:
        guessed, remarks = guess_manifest(folder)
        manifest = Manifest(**{**guessed, **known})
        inferred = tuple(remark for remark in remarks if remark.missing not in known)
    if folder.has(FILE_NAME) and not known:  # else it is not the file that is wrong
        with complaints_of(folder.path):
            _check_model(folder, manifest)
    else:
        _check_model(folder, manifest)
    return LoadedManifest(manifest, (*inferred, *_padding_remarks(folder, manifest)))


def check_length(folder: ModelFolder, max_tokens: int) -> None:
    """Compares a length with what the model can read.

    Raises:
        ManifestError: It is beyond the model's positions.
    """
    limit = folder.position_limit()
    if limit is not None and max_tokens > limit:
        raise ManifestError(
            f"max_tokens is {max_tokens}; the model in {folder.path} reads at most {limit} tokens (its positions in "
            f"config.json): give {limit} or less"
        )


def write_manifest(path: Path | str, manifest: Manifest) -> None:
    """Writes `palate.json` into an existing folder, in one move."""
    write_document(Path(path), said_by(manifest))


def said_by(values: Any) -> dict[str, Any]:
    """The fields of the `palate.json` of a manifest or an ensemble; what is not used is left out."""
    return {name: value for name, value in asdict(values).items() if value is not None and value != ()}


def digest_folder(path: Path | str, manifest: Manifest) -> Digests:
    """Names what the folder holds; reads every byte of its weights (about half a second per GiB)."""
    folder = ModelFolder(path)
    weights = weights_digest(_entry(tensor) for tensor in folder.tensors.values())
    tokenizer = tokenizer_digest(folder)
    template = template_digest(folder, manifest)
    calibration = asdict(manifest.calibration) if manifest.calibration else None
    revision = digest_of([weights, tokenizer, template, calibration, manifest.logit_scale])
    return Digests(weights, tokenizer, template, revision)


def _entry(tensor: StoredTensor) -> TensorEntry:
    return TensorEntry(tensor.name, tensor.dtype, tensor.shape, tensor.end - tensor.begin, tensor_sha256(tensor))


def tokenizer_digest(folder: ModelFolder) -> str:
    """Names the mapping from text to ids."""
    return digest_of({key: value for key, value in folder.tokenizer.items() if key not in ("padding", "truncation")})


def template_digest(folder: ModelFolder, manifest: Manifest) -> str:
    """Names everything between a (prompt, completion) and the ids that are read, and where the score is read."""
    uses_template = manifest.template_kind == "chat"
    rule = {field: getattr(manifest, field) for field in _TEMPLATE_FIELDS}
    if manifest.member_labels:  # only then, so that models without members keep their names
        rule["member_labels"] = manifest.member_labels
    specials = {role: folder.special_token(role) for role in ("bos_token", "eos_token")}
    return digest_of([rule, specials, folder.chat_template if uses_template else None])


_TEMPLATE_FIELDS = (
    "kind", "architecture", "template_kind", "add_bos", "add_eos", "max_tokens", "truncation", "score_index",
    "score_weights",
)  # fmt: skip


def digest_of(value: Any) -> str:
    """SHA-256 of a value that JSON can hold, hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


BuiltT = TypeVar("BuiltT")


def build(kind: type[BuiltT], document: Mapping[str, Any], table: Table) -> BuiltT:
    """What the fields of a `palate.json` say.

    Raises:
        ManifestError: Naming the field, what was found, and what is expected.
    """
    values = dict(document)
    for name in (field.name for field in fields(kind) if field.name in document):  # type: ignore[arg-type]
        if name in _LISTS:
            values[name] = listed(document, name, table)
        elif name in _PARTS and document[name] is not None:
            values[name] = built(_PARTS[name], document[name], table, f"{name}.")
    return built(kind, values, table)


_LISTS = ("score_weights", "member_labels", "members")
_PARTS: dict[str, type[Any]] = {"calibration": Calibration, "onnx": OnnxExport}


def _parse(folder: ModelFolder) -> Manifest:
    document = read_document(folder.path)
    if document.get("kind") == "ensemble":
        raise ManifestError(
            f"{folder.path} is an ensemble of other folders, which only a reward server reads; name one of its members"
        )
    with complaints_of(folder.path):
        return build(Manifest, document, FIELDS)


_READINGS = ("score_index", "score_weights", "member_labels")
"""Ways to read a score where there are several labels."""


def _check_fit(manifest: Manifest, name: str, contradicts: bool, expected: str) -> None:
    """One field against the architecture."""
    if contradicts:
        value, architecture = getattr(manifest, name), manifest.architecture
        raise ManifestError(f"{name} is {shown(value)} beside architecture {shown(architecture)}; {expected}")


def _check_model(folder: ModelFolder, manifest: Manifest) -> None:
    """The manifest against the model in the folder."""
    check_length(folder, manifest.max_tokens)
    if manifest.kind == "reward":
        classifier_head(folder)
        _check_labels(folder, manifest)


def _check_labels(folder: ModelFolder, manifest: Manifest) -> None:
    labels = label_count(folder)
    if manifest.score_weights and len(manifest.score_weights) != labels:
        raise ManifestError(f"score_weights has {len(manifest.score_weights)} entries; the model has {labels} labels")
    if manifest.score_index is not None and manifest.score_index >= labels:
        raise ManifestError(f"score_index is {manifest.score_index}; the model has {labels} labels, counted from 0")
    if manifest.member_labels:
        if max(manifest.member_labels) >= labels:
            raise ManifestError(f"member_labels names {max(manifest.member_labels)}; the model has {labels} labels")
    elif labels > 1 and manifest.score_index is None and not manifest.score_weights:
        raise ManifestError(
            f"{folder.path} has {labels} labels; say which is the score with score_index (or score_weights, or "
            f"member_labels) in a {FILE_NAME}, or with palate export --score-index"
        )


def _padding_remarks(folder: ModelFolder, manifest: Manifest) -> tuple[Inferred, ...]:
    """Where transformers' own reading of the score depends on the pad token, ours does not; say so."""
    if manifest.kind == "policy" or manifest.architecture == "encoder":
        return ()
    assumed = "the score is read at the true last token by the attention mask, not by searching for the pad id"
    pad, eos = folder.pad_token_id, folder.config.get("eos_token_id")
    if pad is None:
        return (Inferred("pad_token_id in config.json", assumed),)
    if pad == eos or (isinstance(eos, list) and pad in eos):
        return (Inferred("a pad token that is not the end-of-sequence token", assumed),)
    return ()
