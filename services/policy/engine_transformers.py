"""Runs any Hugging Face causal language model from a local folder, with a decode loop of our own."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.utils import logging as hf_logging

from palate.models.logprobs import masked_positions, sampled_logprobs
from palate.models.torch_device import torch_device
from palate.models.weights import TensorEntry, describe_tensors, untied_state_dict
from services.policy.caches import OwnCache, SlotCache, has_slots
from services.policy.decoding import Decoding, left_padded


class ModelError(Exception):
    """The folder holds no policy that can be served; the message says why."""


class TransformersEngine:
    """A causal language model, on a CPU or a GPU; weights are modules that share nothing but code.

    A seed draws one thing on a CPU and another on a GPU, whose random numbers are not the same.

    Args:
        model: A loaded model, on the device where it is to compute; its layout is kept, its tensors are not.
        dtype: "float32" or "bfloat16", as the model was loaded.
        eos_token_id: The tokenizer's; it ends a completion beside those that the model's configurations name.
    """

    name = "transformers"
    strict = True
    one_batch = False

    def __init__(self, model: Any, dtype: str, eos_token_id: int | None = None) -> None:
        self.dtype = dtype
        self.threads = torch.get_num_threads()
        self._device: torch.device = model.device
        self.vocab_size: int = model.config.get_text_config().vocab_size
        self.eos_token_ids = _eos_token_ids(model, eos_token_id)
        self.joins = has_slots(model.config)
        self._skeleton = _without_tensors(model)

    @classmethod
    def load(
        cls, folder: Path, dtype: str, eos_token_id: int | None = None, device: str = "cpu"
    ) -> tuple[TransformersEngine, nn.Module]:
        """The engine and the folder's weights; safetensors only, no remote code, nothing is downloaded.

        Args:
            folder: A Hugging Face causal language model.
            dtype: "float32" or "bfloat16".
            eos_token_id: The tokenizer's.
            device: "auto", "cpu", "cuda", "cuda:1" and so on.

        Raises:
            ModelError: The folder holds no complete causal language model.
            FolderError: There is no such device.
        """
        place = torch_device(device)
        model = _loaded(folder, getattr(torch, dtype)).to(place)
        return cls(model, dtype, eos_token_id), model

    def describe(self, weights: nn.Module) -> list[TensorEntry]:
        """The module's tensors, tied ones once."""
        return describe_tensors(self.tensors(weights))

    def tensors(self, weights: nn.Module) -> Mapping[str, Tensor]:
        """The module's tensors, tied ones once, in the processor's memory."""
        return {name: tensor.cpu() for name, tensor in untied_state_dict(weights).items()}

    def build(self, state: Mapping[str, Tensor]) -> nn.Module:
        """A module that holds the tensors of `state` themselves, copied only where it computes on a GPU.

        Raises:
            ModelError: A tensor is missing, or the model has none of that name.
        """
        module: nn.Module = copy.deepcopy(self._skeleton)
        result = module.load_state_dict(dict(state), strict=False, assign=True)
        if result.unexpected_keys:
            raise ModelError(f"the model has no tensors called {', '.join(result.unexpected_keys)}")
        module.tie_weights()  # type: ignore[operator]  # transformers gives it to every model
        if empty := [name for name, parameter in module.named_parameters() if parameter.is_meta]:
            raise ModelError(f"the weights lack {', '.join(empty)}")
        return module.to(self._device).requires_grad_(False).eval()

    def batch(self, weights: nn.Module) -> Decoding:
        """A batch without rows."""
        return Decoding(weights, self.eos_token_ids, SlotCache() if self.joins else OwnCache(weights.config))

    @torch.inference_mode()
    def logprobs(
        self, weights: Any, sequences: Sequence[tuple[Sequence[int], Sequence[int]]], temperature: float
    ) -> list[list[float]]:
        """Logprobs of the completions; padded on the left, so that all end at the last column."""
        ids, mask = left_padded([(*prompt, *completion) for prompt, completion in sequences], weights.device)
        longest = max(len(completion) for _, completion in sequences)
        output = weights(
            input_ids=ids,
            attention_mask=mask,
            position_ids=masked_positions(mask),
            use_cache=False,
            logits_to_keep=longest + 1,
        )
        # The logits at a position predict the token after it.
        rows = sampled_logprobs(output.logits[:, :-1], ids[:, -longest:], temperature)  # (B, longest)
        return [row[-len(completion) :].tolist() for row, (_, completion) in zip(rows, sequences, strict=True)]


def read_tensors(folder: Path, dtype: str) -> Mapping[str, Tensor]:
    """The folder's weights by name, tied ones once, each in memory of its own.

    Raises:
        ModelError: As `TransformersEngine.load`.
    """
    loaded = untied_state_dict(_loaded(folder, getattr(torch, dtype)))
    # Memory that torch aligned, as that of published tensors: kernels show it in the last bit.
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in loaded.items()}


def _loaded(folder: Path, dtype: torch.dtype) -> nn.Module:
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # a server's log is no terminal
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder} cannot be loaded as a causal language model: {error}") from error
    model, report = loaded
    if report["missing_keys"] or report["mismatched_keys"]:
        wrong = sorted(map(str, (*report["missing_keys"], *report["mismatched_keys"])))
        raise ModelError(f"the checkpoint in {folder} lacks {', '.join(wrong)}; these weights would be random")
    served: nn.Module = model.requires_grad_(False).eval()
    return served


def _without_tensors(model: Any) -> Any:
    """A copy of the module whose parameters take no memory; ties between them stay."""
    empty = {id(p): nn.Parameter(p.detach().to("meta"), requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, empty)


def _eos_token_ids(model: Any, of_tokenizer: int | None) -> tuple[int, ...]:
    """Every end-of-sequence token: the tokenizer's, which ends what a policy is taught, and the configurations'."""
    ids = [] if of_tokenizer is None else [of_tokenizer]
    for config in (model.config, model.generation_config):
        value = getattr(config, "eos_token_id", None)
        ids.extend(value if isinstance(value, (list, tuple)) else [] if value is None else [value])
    return tuple(dict.fromkeys(ids))
