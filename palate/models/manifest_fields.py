"""The fields of `palate.json`: what each means and may be; for the checks, their messages and docs/model-folder.md."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from palate.models.document import ManifestError, shown
from palate.spelling import unknown

Kind = Literal["reward", "policy"]
Architecture = Literal["encoder", "decoder"]
TemplateKind = Literal["chat", "pair", "join"]
Truncation = Literal["reject", "left", "right"]
Precision = Literal["float32", "int8"]

_MOST_TOKENS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Field:
    """One field.

    Attributes:
        name: As in the file; a dot stands between an object and its fields.
        meaning: What it says of the model.
        unit: Of its value; empty where it has none.
        expected: What its value may be, as the end of "expected ...".
        holds: Whether a value is that.
        example: One such value; of a reward model that is an encoder, where it matters.
    """

    name: str
    meaning: str
    unit: str
    expected: str
    holds: Callable[[Any], bool]
    example: Any


Table = Mapping[str, Field]
"""Fields by their names, in the order of the file."""


def check_fields(values: object, table: Table, prefix: str = "") -> None:
    """Checks every field of a dataclass whose fields are in the file under `prefix`.

    Raises:
        ManifestError: With the field, what was found, and what is expected.
    """
    for name in (each.name for each in fields(values)):  # type: ignore[arg-type]
        field, value = table.get(prefix + name), getattr(values, name)
        if field is not None and not field.holds(value):
            raise ManifestError(f"{field.name} is {shown(value)}; expected {field.expected}")


BuiltT = TypeVar("BuiltT")


def built(kind: type[BuiltT], document: object, table: Table, prefix: str = "") -> BuiltT:
    """A dataclass from the JSON object with its fields; `kind` checks their values itself.

    Raises:
        ManifestError: It is no object, has a field that nobody knows, or lacks one.
    """
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(document, dict):
        raise ManifestError(
            f"{prefix.rstrip('.')} is {shown(document)}, not a JSON object; expected one with {', '.join(known)}"
        )
    if strange := [name for name in document if name not in known]:
        raise ManifestError(prefix + unknown(strange[0], known, f"the fields are {', '.join(known)}"))
    missing = [
        f"{prefix}{name} (expected {table[prefix + name].expected})"
        for name, field in known.items()
        if field.default is MISSING and name not in document
    ]
    if missing:
        raise ManifestError(f"missing: {'; '.join(missing)}")
    return kind(**document)


def listed(document: Mapping[str, Any], name: str, table: Table) -> tuple[Any, ...]:
    """The list under `name`.

    Raises:
        ManifestError: It is no list.
    """
    value = document[name]
    if not isinstance(value, list):
        raise ManifestError(f"{name} is {shown(value)}, not a list; expected {table[name].expected}")
    return tuple(value)


def is_integer(value: object) -> bool:
    """A whole number; JSON's true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: object) -> bool:
    """A number that is neither infinite nor NaN."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # NaN is not


def _are_members(labels: tuple[object, ...]) -> bool:
    whole = all(is_integer(label) and label >= 0 for label in labels)  # type: ignore[operator]  # it is an integer
    return whole and len(set(labels)) == len(labels) >= 2


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _choice(name: str, meaning: str, choices: tuple[str, ...], example: str) -> Field:
    expected = f"one of {', '.join(choices)}" if len(choices) > 1 else f'"{choices[0]}"'
    return Field(name, meaning, "", expected, lambda value: value in choices, example)


def _flag(name: str, meaning: str) -> Field:
    return Field(name, meaning, "", "true or false", lambda value: isinstance(value, bool), False)


def _digest(name: str, meaning: str) -> Field:
    def holds(value: Any) -> bool:
        return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")

    return Field(name, meaning, "", "a SHA-256, 64 hexadecimal digits", holds, "0123456789abcdef" * 4)


_ALL = (
    _choice("kind", "What the model is for: a reward model scores, a policy writes.", get_args(Kind), "reward"),
    _choice(
        "architecture",
        "Where the score is read: encoders at their first token, decoders at the last one. A policy is a decoder.",
        get_args(Architecture),
        "encoder",
    ),
    _choice(
        "template_kind",
        "How prompt and completion are put together: `chat` = the tokenizer's chat template, `pair` = an encoder's "
        "encoding of two texts, `join` = one text after the other.",
        get_args(TemplateKind),
        "pair",
    ),
    _flag(
        "add_bos",
        "Whether exactly one beginning-of-sequence token stands first. Of decoders; an encoder's tokenizer and a chat "
        "template place their own.",
    ),
    _flag("add_eos", "Whether an end-of-sequence token stands last: as the model was trained. Of decoders."),
    Field(
        "max_tokens",
        "Longest input, special tokens included; of a policy prompt and completion together. At most the positions "
        "that config.json gives the model.",
        "tokens",
        f"a whole number from 4 to {_MOST_TOKENS}",
        lambda value: is_integer(value) and 4 <= value <= _MOST_TOKENS,
        512,
    ),
    _choice(
        "truncation",
        "What happens to longer inputs, unless a request says otherwise: `reject` them, cut the oldest tokens "
        "(`left`), or the newest (`right`).",
        get_args(Truncation),
        "reject",
    ),
    Field(
        "score_index",
        "Which label is the score, where the classifier has several; left out where it has one.",
        "",
        "a whole number that counts labels from 0",
        lambda value: value is None or (is_integer(value) and value >= 0),
        1,
    ),
    Field(
        "score_weights",
        "Instead of `score_index`: the score is the sum of all labels' logits times these weights.",
        "",
        "a list of finite numbers, one for each label",
        lambda value: isinstance(value, tuple) and all(map(is_finite, value)),
        (0.0, 0.5, 1.0),
    ),
    Field(
        "member_labels",
        "Labels that are scores of their own: an ensemble of several heads on one backbone.",
        "",
        "a list of at least two different labels, which count from 0",
        lambda value: isinstance(value, tuple) and (not value or _are_members(value)),
        (0, 1),
    ),
    Field(
        "logit_scale",
        "The first of two completions is preferred with probability sigmoid(`logit_scale` × difference of scores).",
        "1 / unit of the score",
        "a finite number above 0",
        lambda value: is_finite(value) and value > 0,
        0.8,
    ),
    Field(
        "calibration.mean",
        "Mean raw score of reference completions; a calibrated score is (score − mean) / std.",
        "unit of the score",
        "a finite number",
        is_finite,
        1.25,
    ),
    Field(
        "calibration.std",
        "Standard deviation of the same scores.",
        "unit of the score",
        "a finite std above 0",
        lambda value: is_finite(value) and value > 0,
        2.5,
    ),
    _digest("onnx.sha256", "SHA-256 of model.onnx. Written by `palate export`."),
    _digest(
        "onnx.weights_digest", "Digest of the checkpoint that model.onnx was made from. Written by `palate export`."
    ),
    _choice(
        "onnx.precision",
        "How model.onnx multiplies by weights; replies name it as their dtype. Written by `palate export`.",
        get_args(Precision),
        "float32",
    ),
)

FIELDS: Table = {field.name: field for field in _ALL}
"""Of a single model."""

_OF_ENSEMBLES = (
    _choice("kind", "What tells an ensemble from a single model.", ("ensemble",), "ensemble"),
    Field(
        "members",
        "The folders whose scores become one. They share tokenizer, template and how the score is read.",
        "",
        "a list of at least two members, each with a path of its own",
        lambda value: isinstance(value, tuple) and len({member.path for member in value}) == len(value) >= 2,
        (),
    ),
    Field(
        "members.path",
        "Where the member's folder is.",
        "",
        "a path from the ensemble's folder on, not an absolute one",
        lambda value: _is_text(value) and not Path(value).is_absolute(),
        "../first",
    ),
    Field(
        "members.revision",
        "What the folder must be; another revision is refused.",
        "",
        "the revision of the member, as text",
        _is_text,
        "0123456789abcdef" * 4,
    ),
    *(FIELDS[name] for name in ("logit_scale", "calibration.mean", "calibration.std")),
)

ENSEMBLE_FIELDS: Table = {field.name: field for field in _OF_ENSEMBLES}
"""Of an ensemble of several folders."""
