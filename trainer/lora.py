"""Low-rank adapters on a model (LoRA): added, taken off, merged into weights, written as peft reads them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import save_file
from torch import Tensor, nn

from palate.models.adapters import factor_names, merged_tensors
from palate.models.weights import describe_tensors, untied_state_dict, weights_digest
from trainer.errors import TrainerError
from trainer.lora_config import ALL_LINEAR, LoraGroup
from trainer.model_folder import replaced_folder
from trainer.written import written

_WEIGHTS = "adapter_model.safetensors"

_NAME = "default"
"""What peft calls the one adapter in the model."""

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class NotAdaptable(TrainerError):
    """A model has no layers that can have the adapters asked for; the message names what it has."""


def add_adapters(model: Any, lora: LoraGroup, whole: Sequence[str] = (), dropout: float = 0.0) -> None:
    """Freezes a transformers model and adds adapters, which learn; they change nothing yet.

    Args:
        model: Stays in evaluation mode, its dropout too.
        lora: Which adapters.
        whole: Names of the modules that learn as a whole and have none.
        dropout: Share of an adapter's inputs that `dropout_modules` leave out in training mode.

    Raises:
        NotAdaptable: The model has no layers of these names, or they are no plain linear ones.
    """
    from peft import LoraConfig, inject_adapter_in_model

    excluded = [name for part in whole for name in _linear_layers(model) if f"{name}.".startswith(f"{part}.")]
    _check_targets(model, lora.target_modules, excluded)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=ALL_LINEAR if lora.target_modules == [ALL_LINEAR] else lora.target_modules,
        exclude_modules=excluded or None,
        lora_dropout=dropout,
        task_type="SEQ_CLS" if whole else "CAUSAL_LM",
    )
    inject_adapter_in_model(config, model, _NAME)
    _check_layers(model)
    for part in whole:
        model.get_submodule(part).requires_grad_(True)
    model.eval()


def dropout_modules(model: nn.Module) -> tuple[nn.Module, ...]:
    """What leaves out an adapter's inputs where it is in training mode; none for a model without adapters."""
    return tuple(layer.lora_dropout[_NAME] for _, layer in _lora_modules(model))


def has_adapters(model: nn.Module) -> bool:
    """Whether `add_adapters` was there."""
    return any(_lora_modules(model))


def adapter_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The factors of every adapter, called as in peft's files; A before B."""
    found: dict[str, Tensor] = {}
    for target, layer in _layers(model):
        factors = (layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight)
        found.update(zip(factor_names(target), (factor.detach() for factor in factors), strict=True))
    return found


def adapter_scale(model: nn.Module) -> float:
    """What multiplies the products of all factors: alpha / rank."""
    _, first = next(_layers(model))
    return float(first.scaling[_NAME])


def without_adapters(module: ModuleT) -> ModuleT:
    """The module as it was before its adapters: other modules around the same tensors, which take no memory."""
    plain = copy.deepcopy(module, {id(parameter): parameter for parameter in module.parameters()})
    for name, layer in list(_lora_modules(plain)):
        parent, _, child = name.rpartition(".")
        setattr(plain.get_submodule(parent), child, layer.get_base_layer())
    return plain


def base_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that adapters are added to, with all others, by their names in a model without adapters."""
    return untied_state_dict(without_adapters(model))


def base_digest(model: nn.Module) -> str:
    """Names the weights that adapters were trained on; empty for a model without adapters."""
    return weights_digest(describe_tensors(base_state(model))) if has_adapters(model) else ""


def targets_of(model: nn.Module) -> tuple[str, ...]:
    """Which tensors of the model have adapters."""
    return tuple(target for target, _ in _layers(model))


def merged_model(model: Any) -> Any:
    """A plain model with the weights that are published of `model`; without adapters, `model`. On the CPU."""
    if not has_adapters(model):
        return model
    plain = without_adapters(model)
    base = untied_state_dict(plain)
    merged = merged_tensors(base, adapter_tensors(model), targets_of(model), adapter_scale(model))
    for name, tensor in merged.items():
        parent, _, child = name.rpartition(".")
        setattr(plain.get_submodule(parent), child, nn.Parameter(tensor, requires_grad=False))
    return plain


def save_adapter_folder(model: Any, base: Path, folder: Path) -> Path:
    """Writes what `PeftModel.from_pretrained(model of base, folder)` reads, in one move."""
    with replaced_folder(folder) as draft:
        config = copy.copy(model.peft_config[_NAME])
        config.base_model_name_or_path, config.inference_mode = str(base), True
        config.save_pretrained(draft)
        tensors = {name: tensor.contiguous() for name, tensor in adapter_tensors(model).items()}
        with written(folder / _WEIGHTS):
            save_file(tensors, draft / _WEIGHTS, metadata={"format": "pt"})
    return folder


def _layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Every adapter, with the name of the tensor that it is for."""
    return ((f"{name}.weight", layer) for name, layer in _lora_modules(model))


def _lora_modules(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Peft's layers; known by what they hold, as peft takes seconds to import where there are none."""
    return ((name, layer) for name, layer in module.named_modules() if hasattr(layer, "lora_A"))


def _linear_layers(model: Any) -> list[str]:
    """Names of the plain linear layers, the output layer aside."""
    output = model.get_output_embeddings()
    return [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and layer is not output]


def _check_targets(model: Any, targets: list[str], excluded: Sequence[str]) -> None:
    layers = [name for name in _linear_layers(model) if name not in excluded]
    wanted = [] if targets == [ALL_LINEAR] else targets
    unknown = [target for target in wanted if not any(f".{name}".endswith(f".{target}") for name in layers)]
    if unknown or not layers:
        called = f" called {', '.join(unknown)}" if unknown else ""
        known = ", ".join(sorted({name.rpartition(".")[2] for name in layers})) or "none: leave --lora.rank out"
        raise NotAdaptable(
            f"--lora.target-modules: {type(model).__name__} has no plain linear layers{called}, its output layer "
            f"aside; it has {known}"
        )


def _check_layers(model: Any) -> None:
    """What is published is base + scale · B A of a plain matrix that nothing else shares."""
    for name, layer in _lora_modules(model):
        base, rank = layer.get_base_layer(), layer.r[_NAME]
        if type(base) is not nn.Linear:
            kind = type(base).__name__
            raise NotAdaptable(f"--lora: {name} is a {kind}; adapters are for plain linear layers: name others")
        if rank > (most := min(base.weight.shape)):
            raise NotAdaptable(f"--lora.rank {rank} is more than {name} has: give {most} or less")
    shared = set(targets_of(model)) - base_state(model).keys()
    if shared:
        raise NotAdaptable(f"--lora: {', '.join(sorted(shared))} is tied to another tensor and cannot have an adapter")
