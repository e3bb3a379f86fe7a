"""A sequence-classification model in PyTorch that reads its score by the mask; imports torch and transformers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from palate.models.folder import FolderError, ModelFolder
from palate.models.foreign import label_count
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
        self._is_decoder = architecture == "decoder"

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, labels) logits of (B, T) token ids, mask, and segments for models that have them."""
        segments = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        if not self._is_decoder:
            return _logits(self.model(input_ids=input_ids, attention_mask=attention_mask, **segments))
        body = self.model.base_model
        hidden = body(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state  # (B, T, D)
        positions = last_token_positions(attention_mask)[:, None, None].expand(-1, 1, hidden.shape[-1])  # (B, 1, D)
        logits: torch.Tensor = self.model.score(hidden.gather(1, positions)[:, 0])
        return logits


def load_classifier(path: Path | str, manifest: Manifest) -> MaskedClassifier:
    """Loads a folder's weights in float32, ready for inference.

    Raises:
        FolderError: Weights are missing from the checkpoint or do not fit the configuration, or transformers does not
            know the model.
    """
    folder = ModelFolder(path)
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder.path,
            num_labels=label_count(folder),
            dtype=torch.float32,
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
    # eval() on the whole: exporting restores the wrapper's own mode, and would switch dropout on underneath it.
    return MaskedClassifier(model.requires_grad_(False), manifest.architecture).eval()


def _logits(output: Any) -> torch.Tensor:
    logits: torch.Tensor = output.logits
    return logits
