"""A sequence-classification model in PyTorch that reads its score by the mask; imports torch and transformers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, DynamicCache

from palate.models.folder import FolderError, ModelFolder
from palate.models.foreign import classifier_head, label_count
from palate.models.manifest import Manifest
from palate.models.score_position import last_token_positions

logger = logging.getLogger(__name__)


class MaskedClassifier(torch.nn.Module):
    """Logits of right-padded rows, the same for a row alone and in any batch.

    transformers' decoder classifiers search the last id that is not the pad id and ignore the mask; this calls their
    backbone and head instead, and reads at the last token of the mask. Encoders run as they are.
    """

    def __init__(self, model: Any, architecture: str) -> None:
        super().__init__()
        self.model = model
        self.is_decoder = architecture == "decoder"

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, labels) logits of (B, T) token ids, mask, and segments for models that have them."""
        segments = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        if not self.is_decoder:
            return _logits(self.model(input_ids=input_ids, attention_mask=attention_mask, **segments))
        hidden = self.model.base_model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state  # (B, T, D)
        return self._read(hidden, attention_mask)

    def read_prefix(self, input_ids: torch.Tensor) -> DynamicCache:
        """Keys and values of (1, P) token ids, for `go_on`; decoders only."""
        cache = DynamicCache(config=self.model.config)
        self.model.base_model(input_ids=input_ids, past_key_values=cache, use_cache=True)
        return cache

    def go_on(self, prefix: DynamicCache, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(B, labels) logits of texts that begin with `prefix`, from (B, S) ids and mask of what comes after it.

        `prefix` can be used again, for another number of rows too.
        """
        rows, length = input_ids.shape
        first = torch.zeros(rows, dtype=torch.long, device=input_ids.device)
        prefix.batch_select_indices(first)
        before = attention_mask.new_ones(rows, prefix.get_seq_length())
        hidden = self.model.base_model(
            input_ids=input_ids,
            attention_mask=torch.cat([before, attention_mask], dim=1),  # (B, P + S)
            past_key_values=prefix,
            use_cache=True,
        ).last_hidden_state  # (B, S, D)
        prefix.crop(-length)
        return self._read(hidden, attention_mask)

    def _read(self, hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        positions = last_token_positions(attention_mask)[:, None, None].expand(-1, 1, hidden.shape[-1])  # (B, 1, D)
        logits: torch.Tensor = self.model.score(hidden.gather(1, positions)[:, 0])
        return logits


def load_classifier(path: Path | str, manifest: Manifest, dtype: torch.dtype = torch.float32) -> MaskedClassifier:
    """Loads a folder's weights as `dtype`, ready for inference; the head computes in float32 whatever the rest does.

    Raises:
        FolderError: Weights are missing from the checkpoint or do not fit the configuration, or transformers does not
            know the model.
    """
    folder = ModelFolder(path)
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder.path,
            num_labels=label_count(folder),
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise FolderError(f"transformers cannot load {folder.path}: {error}") from error
    if missing := sorted(map(str, report["missing_keys"])):
        raise FolderError(f"{folder.path} lacks weights that would be made up at random: {', '.join(missing[:5])}")
    if manifest.architecture == "decoder" and not hasattr(model, "score"):
        raise FolderError(f"{type(model).__name__} has no `score` head, so it is not a decoder this can read")
    if dtype != torch.float32:
        _compute_in_float32(model.get_submodule(classifier_head(folder).name.removesuffix(".weight")))
    # eval() on the whole: exporting restores the wrapper's own mode, and would switch dropout on underneath it.
    return MaskedClassifier(model.requires_grad_(False), manifest.architecture).eval()


def _compute_in_float32(head: torch.nn.Module) -> None:
    """A score of three digits would tie with its neighbours; the head is small, so it costs nothing."""
    head.float().register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))


def _logits(output: Any) -> torch.Tensor:
    logits: torch.Tensor = output.logits
    return logits
