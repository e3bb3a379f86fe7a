"""Whether a decoder can go on after a prefix that was read once, decided before it serves anybody."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from palate.models.classifier import MaskedClassifier

_TOLERANCE = 1e-4
"""Of the probe's spread of logits in float32; rounding alone is a hundred times smaller."""

_PREFIX, _REST, _ROWS = 24, 8, 4


def obstacle_to_reuse(model: MaskedClassifier) -> str | None:
    """Why a decoder's rows must be computed whole; None where what they share can be computed once.

    Looks at how the model keeps keys and values, then computes random rows both ways.
    """
    body, config = model.model.base_model, model.model.config.get_text_config(decoder=True)
    if "past_key_values" not in inspect.signature(body.forward).parameters or getattr(body, "_is_stateful", False):
        return "the model does not keep keys and values, or not them alone"
    kinds = {type(layer) for layer in DynamicCache(config=model.model.config).layers}
    if kinds != {DynamicLayer}:
        return f"its layers keep other than all keys and values ({', '.join(sorted(kind.__name__ for kind in kinds))})"
    if moving := _rope_types(getattr(config, "rope_parameters", None)) & {"dynamic", "longrope"}:
        return f"its position encoding ({', '.join(moving)}) depends on the length of the whole row"
    return _disagreement(model, config.vocab_size)


def _rope_types(parameters: Any) -> set[str]:
    """Kinds of rotary position encoding; one set of parameters for all layers, or one for each kind of layer."""
    if not isinstance(parameters, dict):
        return set()
    own = parameters.get("rope_type")
    return {own} if own else set().union(*map(_rope_types, parameters.values()))


@torch.inference_mode()
def _disagreement(model: MaskedClassifier, vocabulary: int) -> str | None:
    weight = next(model.parameters())
    ids = torch.randint(vocabulary, (_ROWS, _PREFIX + _REST), generator=torch.Generator().manual_seed(0))
    ids[:, :_PREFIX] = ids[0, :_PREFIX]
    ids, mask = ids.to(weight.device), torch.ones_like(ids, device=weight.device)
    whole = model(ids, mask).float()
    reused = model.go_on(model.read_prefix(ids[:1, :_PREFIX]), ids[:, _PREFIX:], mask[:, _PREFIX:]).float()
    # Where all rows score alike, rounding itself is the scale.
    scale = max(float(whole.std()), 1e-3 * float(whole.abs().max()), 1e-6)
    apart = float((whole - reused).abs().max()) / scale
    allowed = _TOLERANCE * torch.finfo(weight.dtype).eps / torch.finfo(torch.float32).eps
    return None if apart <= allowed else f"random rows score up to {apart:.1e} standard deviations apart"
