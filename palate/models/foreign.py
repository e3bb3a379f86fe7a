"""What a model folder without palate.json most likely means, and a list of everything that had to be assumed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from palate.models.folder import FolderError, ModelFolder, StoredTensor

_HEAD_NAMES = (
    "score.weight",  # decoders
    "classifier.weight",  # BERT and its kin
    "classifier.out_proj.weight",  # RoBERTa, ELECTRA
    "classifier.linear.weight",
)

_DEFAULT_MAX_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Inferred:
    """Something that a folder leaves open, and what is assumed instead."""

    missing: str
    assumed: str


def classifier_head(folder: ModelFolder) -> StoredTensor:
    """The tensor that turns a hidden state into labels, (labels, hidden).

    Raises:
        FolderError: No such tensor is in the checkpoint; transformers would make one up at random.
    """
    for name in _HEAD_NAMES:
        if name in folder.tensors:
            return folder.tensors[name]
    raise FolderError(
        f"{folder.path} holds no classifier head (none of {', '.join(_HEAD_NAMES)} is in its checkpoint), so its "
        "scores would be random; give the folder of a trained sequence-classification model"
    )


def label_count(folder: ModelFolder) -> int:
    """How many labels the head in the checkpoint has."""
    shape = classifier_head(folder).shape
    if len(shape) != 2 or shape[0] < 1:
        raise FolderError(f"the classifier head of {folder.path} has shape {shape}, not (labels, hidden size)")
    return shape[0]


def guess_manifest(folder: ModelFolder) -> tuple[dict[str, Any], tuple[Inferred, ...]]:
    """Fields of the manifest that `folder` would have, and what was assumed to fill them."""
    kind = _kind(folder)
    architecture = "decoder" if kind == "policy" else _architecture(folder)
    template_kind = _template_kind(folder, kind, architecture)
    add_bos, add_eos = _special_token_rule(folder, architecture, template_kind)
    limit = folder.length_limit()
    fields = {
        "kind": kind,
        "architecture": architecture,
        "template_kind": template_kind,
        "add_bos": add_bos,
        "add_eos": add_eos and kind == "reward",
        "max_tokens": limit or _DEFAULT_MAX_TOKENS,
    }
    return fields, _account(fields, limit)


def _account(fields: dict[str, Any], limit: int | None) -> tuple[Inferred, ...]:
    bos, eos = ("one" if fields[key] else "none is added" for key in ("add_bos", "add_eos"))
    lines = [
        Inferred("palate.json", f"a {fields['kind']} model, {fields['architecture']}, from config.json and its head"),
        Inferred(
            "template_kind", f"{fields['template_kind']} (chat where there is a chat template; pair for encoders)"
        ),
        Inferred("max_tokens", f"{fields['max_tokens']}" + ("" if limit else "; neither config nor tokenizer says")),
        Inferred("truncation", "reject"),
    ]
    if fields["architecture"] == "decoder":
        lines.append(Inferred("add_bos", f"beginning-of-sequence token: {bos}"))
        lines.append(Inferred("add_eos", f"end-of-sequence token: {eos}"))
    if fields["kind"] == "reward":
        lines.append(Inferred("logit_scale", "1.0"))
        lines.append(Inferred("calibration", "none: scores have no calibrated value"))
    return tuple(lines)


_CAUSAL = ("ForCausalLM", "GPT2LMHeadModel")  # GPT-2's class is older than the rule of names


def _kind(folder: ModelFolder) -> str:
    named = folder.config.get("architectures") or []
    names = named if isinstance(named, list) else [named]
    if any(str(name).endswith(_CAUSAL) for name in names):
        return "policy"
    if any(str(name).endswith(("ForSequenceClassification", "ForTextClassification")) for name in names):
        return "reward"
    raise FolderError(
        f"config.json of {folder.path} names {names or 'no architecture'}; a reward model is a "
        "...ForSequenceClassification and a policy a ...ForCausalLM, or GPT2LMHeadModel. `palate train reward` makes a "
        "reward model of a language model or an encoder; a policy must have been trained to go on with a text"
    )


def _architecture(folder: ModelFolder) -> str:
    if folder.config.get("is_encoder_decoder"):
        raise FolderError(f"{folder.path} is an encoder-decoder model; only encoders and decoders are supported")
    return "decoder" if classifier_head(folder).name == "score.weight" else "encoder"


def _template_kind(folder: ModelFolder, kind: str, architecture: str) -> str:
    if folder.chat_template is not None:
        return "chat"
    return "pair" if kind == "reward" and architecture == "encoder" else "join"


def _special_token_rule(folder: ModelFolder, architecture: str, template_kind: str) -> tuple[bool, bool]:
    """(add_bos, add_eos). A chat template writes its own special tokens, an encoder's post-processor its own too."""
    if architecture == "encoder" or template_kind == "chat":
        return False, False
    pieces = _single_template(folder.tokenizer.get("post_processor"))
    specials = [piece.get("SpecialToken", {}).get("id") for piece in pieces] or [None]
    bos, eos = folder.special_token("bos_token"), folder.special_token("eos_token")
    begins = bos is not None and (specials[0] == bos or folder.tokenizer_config.get("add_bos_token") is True)
    ends = eos is not None and (
        (specials[-1] == eos and len(specials) > 1) or folder.tokenizer_config.get("add_eos_token") is True
    )
    return begins, ends


def _single_template(processor: Any) -> list[dict[str, Any]]:
    """The pieces that a tokenizer.json puts around one text."""
    if not isinstance(processor, dict):
        return []
    if processor.get("type") == "Sequence":
        return next(filter(None, map(_single_template, processor.get("processors", []))), [])
    return list(processor.get("single", [])) if processor.get("type") == "TemplateProcessing" else []
