"""Makes actor, critic and reference policy from model folders, and refuses folders that do not fit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from palate.models.folder import FolderError, ModelFolder
from palate.models.manifest import Manifest, load_manifest
from palate.models.rendering import Renderer
from trainer.model_folder import load_causal_model
from trainer.ppo.errors import UnusableModel
from trainer.ppo.model import ActorCritic, CausalLM, Critic, collate
from trainer.types import Sequences

_LOGIT_TOLERANCE = 1e-4


def load_policy(folder: Path) -> tuple[Manifest, Renderer]:
    """How the policy reads prompts.

    Raises:
        UnusableModel: It is no policy folder.
    """
    try:
        manifest = load_manifest(folder).manifest
        if manifest.kind != "policy":
            raise UnusableModel(f"{folder} is a {manifest.kind} model; PPO starts from a policy (a causal LM folder)")
        return manifest, Renderer.from_folder(folder, manifest)
    except FolderError as error:
        raise UnusableModel(f"the policy folder cannot be used: {error}") from error


def load_actor(folder: Path) -> CausalLM:
    """The causal language model in `folder`, float32."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # a bar per file beside the run's own
    actor = CausalLM(load_causal_model(folder))
    _check_plain_head(actor, folder)
    return actor


def build_actor_critic(policy: Path, critic_init: str | None, renderer: Renderer) -> ActorCritic:
    """Actor from the policy folder; critic as `critic_init` says.

    Args:
        policy: Folder of the starting policy.
        critic_init: "policy" = a copy of its backbone with a value head of zeros (as lm-human-preferences), or
            "reward:FOLDER" = backbone and head of a decoder reward model (as summarize-from-feedback); None = without.
        renderer: Of the policy; the reward model must share its tokenizer.
    """
    actor = load_actor(policy)
    if critic_init is None:
        return ActorCritic(actor, None)
    if critic_init == "policy":
        return ActorCritic(actor, _critic_from_policy(actor))
    return ActorCritic(actor, _critic_from_reward(Path(critic_init.removeprefix("reward:")), renderer))


def freeze(actor: CausalLM) -> CausalLM:
    """A copy that never changes: the reference policy."""
    return copy.deepcopy(actor).requires_grad_(False)


def _critic_from_policy(actor: CausalLM) -> Critic:
    backbone = copy.deepcopy(actor.model.base_model)
    head = nn.Linear(_hidden_size(backbone), 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return Critic(backbone, head)


def _critic_from_reward(folder: Path, renderer: Renderer) -> Critic:
    from transformers import AutoModelForSequenceClassification

    _check_reward_folder(folder, renderer)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
    )
    head = nn.Linear(_hidden_size(model.base_model), 1)
    with torch.no_grad():
        head.weight.copy_(model.score.weight)
        nn.init.zeros_(head.bias)
    return Critic(model.base_model, head)


def _check_reward_folder(folder: Path, renderer: Renderer) -> None:
    """A critic reads the policy's tokens one after the other, so not every reward model can become one."""
    remedy = "; use --ppo.critic-init policy"
    try:
        manifest = load_manifest(folder).manifest
        reward_renderer = Renderer.from_folder(folder, manifest)
    except FolderError as error:
        raise UnusableModel(f"critic_init: {error}{remedy}") from error
    if manifest.kind != "reward" or manifest.architecture != "decoder":
        raise UnusableModel(f"critic_init: {folder} is not a decoder reward model{remedy}")
    if manifest.score_weights or manifest.score_index or manifest.member_labels:
        raise UnusableModel(f"critic_init: {folder} has several labels, a critic needs one{remedy}")
    limit = ModelFolder(folder).position_limit()
    if limit is not None and limit < renderer.manifest.max_tokens:
        raise UnusableModel(
            f"critic_init: {folder} reads at most {limit} tokens, the policy {renderer.manifest.max_tokens}{remedy}"
        )
    if reward_renderer.tokenizer_digest != renderer.tokenizer_digest:
        raise UnusableModel(f"critic_init: {folder} has another tokenizer than the policy{remedy}")


def _hidden_size(backbone: Any) -> int:
    return int(backbone.config.get_text_config().hidden_size)


@torch.no_grad()
def _check_plain_head(actor: CausalLM, folder: Path) -> None:
    """Some architectures scale or cap logits behind the output layer; computing that layer alone would miss it."""
    probe = collate(Sequences(((1, 2, 3),), ((4, 5),)), pad_id=0)
    whole = actor.model(input_ids=probe.token_ids, attention_mask=probe.attention_mask).logits
    wanted = whole[probe.rows, probe.positions].float()
    if not torch.allclose(actor.logits(probe).float(), wanted, atol=_LOGIT_TOLERANCE, rtol=_LOGIT_TOLERANCE):
        raise UnusableModel(
            f"{folder}: {type(actor.model).__name__} changes its logits behind the output layer (soft-capping or "
            "scaling); this trainer takes architectures whose logits are the output layer's"
        )
