"""What a reward model starts from: a causal language model or an encoder with a new head, or a reward model."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from palate.models.classifier import MaskedClassifier
from palate.models.folder import FolderError, ModelFolder
from palate.models.manifest import Manifest, TemplateKind, load_manifest
from trainer.lora import add_adapters
from trainer.model_folder import length_limit
from trainer.reward_model.config import RewardTrainConfig

_DEFAULT_MAX_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Start:
    """A model ready to be trained.

    Attributes:
        model: The transformers model, with its adapters where they are asked for.
        classifier: The same, reading its score by the mask.
        manifest: How it reads prompts and completions.
        new_head: Whether its head was made here.
    """

    model: Any
    classifier: MaskedClassifier
    manifest: Manifest
    new_head: bool


def load_start(config: RewardTrainConfig) -> Start:
    """Loads the backbone, makes a head where there is none, and decides how texts are put.

    Raises:
        FolderError: The folder cannot become a reward model with one score, or one of each member.
        NotAdaptable: It has no layers for the adapters asked for.
    """
    from transformers import AutoModelForSequenceClassification

    _ = ModelFolder(config.model).checkpoint  # said in our words; transformers would look for the name on the hub
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            config.model,
            num_labels=config.heads,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=False,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise FolderError(
            f"transformers cannot load {config.model} as a sequence classifier with {_labels(config.heads)}: {error}"
        ) from error
    missing = [str(key) for key in report["missing_keys"]]
    head = _head(model)
    new_head = any(key.startswith(head) for key in missing)
    # Poolers are part of the way to the score, and many encoders come without one.
    if lost := [key for key in missing if not key.startswith(head) and ".pooler." not in key]:
        raise FolderError(f"{config.model} lacks weights of its backbone: {', '.join(sorted(lost)[:5])}")
    if new_head:
        initialise_head(_final_layer(model))
    if config.lora.rank:
        whole = {head, *(key.rpartition(".")[0] for key in missing)}  # what starts at random learns as a whole
        add_adapters(model, config.lora, sorted(whole), config.lora.dropout)
    manifest = _manifest(config, "decoder" if head == "score" else "encoder", new_head)
    return Start(model, MaskedClassifier(model, manifest.architecture), manifest, new_head)


@torch.no_grad()
def initialise_head(layer: torch.nn.Linear) -> None:
    """Weights from N(0, 1/√(d+1)), bias 0 (Stiennon et al. 2020), so that first scores have about unit variance."""
    torch.nn.init.normal_(layer.weight, std=1.0 / math.sqrt(layer.in_features + 1))
    if layer.bias is not None:
        torch.nn.init.zeros_(layer.bias)


def _labels(count: int) -> str:
    return "one label" if count == 1 else f"{count} labels"


def _head(model: Any) -> str:
    for name in ("score", "classifier"):
        if hasattr(model, name):
            return name
    raise FolderError(f"{type(model).__name__} has no `score` or `classifier` head; it cannot be trained here")


def _final_layer(model: Any) -> torch.nn.Linear:
    layers = [module for module in getattr(model, _head(model)).modules() if isinstance(module, torch.nn.Linear)]
    return layers[-1]


def _manifest(config: RewardTrainConfig, architecture: str, new_head: bool) -> Manifest:
    folder = ModelFolder(config.model)
    if architecture == "encoder" and new_head:
        limit = folder.length_limit() or _DEFAULT_MAX_TOKENS
        start = Manifest("reward", "encoder", "pair", add_bos=False, add_eos=False, max_tokens=limit)
    else:
        start = replace(load_manifest(config.model).manifest, kind="reward")
    kind: TemplateKind = start.template_kind if config.template == "auto" else config.template
    if start.architecture == "decoder" and (new_head or kind != start.template_kind):
        start = _decoder_rule(start, kind, folder)
    return replace(
        start,
        template_kind=kind,
        max_tokens=length_limit(config.model, config.max_tokens, start),
        truncation=config.truncation,
        logit_scale=1.0,
        member_labels=tuple(range(config.heads)) if config.heads > 1 else (),
        calibration=None,
        onnx=None,
    )


def _decoder_rule(manifest: Manifest, kind: TemplateKind, folder: ModelFolder) -> Manifest:
    """A chat template writes its own special tokens; joined text gets them, so that the score is read at the EOS."""
    joined = kind == "join"
    has_bos, has_eos = (folder.special_token(role) is not None for role in ("bos_token", "eos_token"))
    return replace(manifest, template_kind=kind, add_bos=joined and has_bos, add_eos=joined and has_eos)
