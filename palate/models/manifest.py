"""`palate.json`: what a model folder means, beyond what Hugging Face files say, and the digests that name it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from palate.models.document import FILE_NAME, ManifestError, read_document, write_document
from palate.models.folder import ModelFolder, StoredTensor, tensor_sha256
from palate.models.foreign import Inferred, classifier_head, guess_manifest, label_count
from palate.models.weights import TensorEntry, weights_digest

Kind = Literal["reward", "policy"]
Architecture = Literal["encoder", "decoder"]
TemplateKind = Literal["chat", "pair", "join"]
Truncation = Literal["reject", "left", "right"]
Precision = Literal["float32", "int8"]

_CHOICES = {
    "kind": get_args(Kind),
    "architecture": get_args(Architecture),
    "template_kind": get_args(TemplateKind),
    "truncation": get_args(Truncation),
}


@dataclass(frozen=True, slots=True)
class Calibration:
    """Mean and standard deviation of the raw score over the model's reference samples."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise ManifestError("calibration needs a finite mean and a std above 0")


@dataclass(frozen=True, slots=True)
class OnnxExport:
    """Binds model.onnx to the weights it was made from, so that one revision names both.

    Attributes:
        sha256: Digest of model.onnx, hexadecimal.
        weights_digest: That of the checkpoint beside it.
        precision: How it multiplies by weights; replies name it as their dtype.
    """

    sha256: str
    weights_digest: str
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise ManifestError(f"onnx: precision is {self.precision!r}; it can be {', '.join(get_args(Precision))}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """How a model is to be used.

    Attributes:
        kind: What it is for.
        architecture: Encoders read the score at their first token, decoders at the last.
        template_kind: How prompt and completion are put together: the tokenizer's chat template, the encoder's pair
            encoding, or one text after the other.
        add_bos: Whether exactly one beginning-of-sequence token stands first (decoders).
        add_eos: Whether an end-of-sequence token stands last (decoders).
        max_tokens: Longest input, special tokens included.
        truncation: What happens to longer ones: refuse, cut the oldest tokens, cut the newest.
        score_index: Which label is the score; None where there is one label, or weights are given.
        score_weights: One weight per label; the score is the weighted sum. Empty = not used.
        member_labels: Labels that are scores of their own: the members of an ensemble on one backbone. Empty = none.
        logit_scale: Factor on raw differences in the Bradley–Terry probability.
        calibration: Raw scores of reference samples, where they were measured.
        onnx: What model.onnx was made from, where there is one.
    """

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
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ManifestError(f"{name} is {getattr(self, name)!r}; it can be {', '.join(choices)}")
        _check_numbers(self)
        if self.architecture == "encoder" and (self.kind == "policy" or self.add_bos or self.add_eos):
            raise ManifestError(
                "an encoder is a reward model whose tokenizer places the special tokens: add_bos and add_eos are false"
            )
        if self.architecture == "decoder" and self.template_kind == "pair":
            raise ManifestError('template_kind "pair" is for encoders; a decoder reads "chat" or "join"')


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
    if manifest.kind == "reward":
        classifier_head(folder)
        _check_labels(folder, manifest)
    return LoadedManifest(manifest, (*inferred, *_padding_remarks(folder, manifest)))


def write_manifest(path: Path | str, manifest: Manifest) -> None:
    """Writes `palate.json` into an existing folder, in one move."""
    fields_said = {name: value for name, value in asdict(manifest).items() if value is not None and value != ()}
    write_document(Path(path), fields_said)


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


def build(kind: type[Any], document: Mapping[str, Any], file: Path) -> Any:
    """A dataclass out of the fields of `document`; a field that is unknown or missing is a `ManifestError`."""
    known = {field.name for field in fields(kind)}
    try:
        if unknown := sorted(document.keys() - known):
            raise ManifestError(f"{', '.join(unknown)} is unknown; the fields are {', '.join(sorted(known))}")
        return _built(kind, {**document, **_nested(document)}, FILE_NAME)
    except ManifestError as error:
        raise ManifestError(f"{file}: {error}") from error


def _parse(folder: ModelFolder) -> Manifest:
    document = read_document(folder.path)
    if document.get("kind") == "ensemble":
        raise ManifestError(
            f"{folder.path} is an ensemble of other folders, which only a reward server reads; name one of its members"
        )
    manifest: Manifest = build(Manifest, document, folder.path / FILE_NAME)
    return manifest


def _nested(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are more than JSON's own values, as what they mean."""
    nested: dict[str, Any] = {name: _tuple(document[name], name) for name in _LISTS if name in document}
    for name, kind in (("calibration", Calibration), ("onnx", OnnxExport)):
        if isinstance(value := document.get(name), Mapping):
            nested[name] = _built(kind, value, name)
        elif value is not None:
            raise ManifestError(f"{name} is {value!r}, not a JSON object")
    return nested


_LISTS = ("score_weights", "member_labels", "members")


def _built(kind: type[Any], values: Mapping[str, Any], name: str) -> Any:
    try:
        return kind(**values)
    except TypeError as error:
        raise ManifestError(f"{name}: {str(error).replace('__init__() ', '')}") from error


def _tuple(value: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ManifestError(f"{name} is {value!r}, not a list")
    return tuple(value)


def _check_numbers(manifest: Manifest) -> None:
    for name in ("add_bos", "add_eos"):
        if not isinstance(getattr(manifest, name), bool):
            raise ManifestError(f"{name} is {getattr(manifest, name)!r}; it can be true or false")
    if not _is_integer(manifest.max_tokens) or manifest.max_tokens < 4:
        raise ManifestError(f"max_tokens is {manifest.max_tokens!r}; it is a whole number of at least 4")
    if manifest.score_index is not None and (not _is_integer(manifest.score_index) or manifest.score_index < 0):
        raise ManifestError(f"score_index is {manifest.score_index!r}; it counts labels from 0")
    if not _is_finite(manifest.logit_scale) or manifest.logit_scale <= 0:
        raise ManifestError(f"logit_scale is {manifest.logit_scale!r}; it is a number above 0")
    if not all(map(_is_finite, manifest.score_weights)):
        raise ManifestError("score_weights must be finite numbers")
    readings = (manifest.score_index is not None, bool(manifest.score_weights), bool(manifest.member_labels))
    if sum(readings) > 1:
        raise ManifestError("give one of score_index, score_weights and member_labels: not both, not all")
    _check_members(manifest.member_labels)


def _check_members(labels: Sequence[object]) -> None:
    if not labels:
        return
    if len(labels) < 2 or len(set(labels)) != len(labels) or not all(map(_is_integer, labels)):
        raise ManifestError(f"member_labels is {list(labels)!r}; it lists at least two different labels, from 0")
    if any(label < 0 for label in labels if isinstance(label, int)):
        raise ManifestError("member_labels count from 0")


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


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
