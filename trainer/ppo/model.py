"""Actor and critic: what they compute for a few sequences at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from palate.models.logprobs import masked_positions, sampled_logprobs
from trainer.types import Sequences, length_mask


@dataclass(frozen=True, slots=True)
class Microbatch:
    """Sequences as one forward pass takes them, prompt ⊕ completion, padded on the right.

    `N` completion tokens of all rows lie one after the other; token n of them is predicted from the hidden state at
    (rows[n], positions[n]). Masks come from lengths, never from ids, so no choice of pad token can hide a real token.

    Attributes:
        token_ids: (B, L).
        attention_mask: (B, L), 1 at real tokens.
        mask: (B, T) bool, real completion tokens; its True positions in row order are the N tokens.
        rows: (N,).
        positions: (N,) of the state *before* each completion token.
        targets: (N,) the completion tokens.
        last_positions: (B,) of the state behind each row's last token.
    """

    token_ids: Tensor
    attention_mask: Tensor
    mask: Tensor
    rows: Tensor
    positions: Tensor
    targets: Tensor
    last_positions: Tensor


def collate(sequences: Sequences, pad_id: int) -> Microbatch:
    """Pads to the longest sequence at hand."""
    lengths = torch.tensor(sequences.lengths())  # (B,)
    attention_mask = length_mask(lengths.tolist()).long()  # (B, L)
    token_ids = torch.full_like(attention_mask, pad_id)
    pairs = zip(sequences.prompt_ids, sequences.completion_ids, strict=True)
    token_ids[attention_mask.bool()] = torch.tensor([token for p, c in pairs for token in (*p, *c)])
    mask = length_mask([len(ids) for ids in sequences.completion_ids])  # (B, T)
    rows, columns = mask.nonzero(as_tuple=True)  # (N,), (N,)
    first = torch.tensor([len(ids) for ids in sequences.prompt_ids])  # (B,) of each row's first completion token
    positions = first[rows] + columns - 1
    return Microbatch(
        token_ids, attention_mask, mask, rows, positions, token_ids[rows, positions + 1], last_positions=lengths - 1
    )


class CausalLM(nn.Module):
    """A language model that computes logits only where a completion token is predicted.

    Args:
        model: A transformers causal language model; stays in evaluation mode, so that dropout is off.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def logits(self, batch: Microbatch) -> Tensor:
        """(N, V) logits of every completion token, before any temperature; where the model is."""
        return self._logits(batch)

    def logprobs(self, batch: Microbatch, temperature: float) -> Tensor:
        """(B, T) logprobs of the completion tokens at the sampling temperature, 0 at padding; on the CPU."""
        logprobs: Tensor = self(batch, temperature)
        return logprobs

    def forward(self, batch: Microbatch, temperature: float) -> Tensor:
        """As `logprobs`; wrappers hook in here."""
        logits = self._logits(batch)
        return scatter(sampled_logprobs(logits, batch.targets.to(logits.device), temperature).cpu(), batch.mask)

    def _logits(self, batch: Microbatch) -> Tensor:
        hidden = _hidden_states(self.model.base_model, batch)  # (B, L, H)
        logits: Tensor = self.model.get_output_embeddings()(hidden[batch.rows, batch.positions])
        return logits


class Critic(nn.Module):
    """A backbone of its own with a value head: V of the state before each completion token."""

    def __init__(self, backbone: Any, value_head: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.value_head = value_head
        self.eval()

    def values(self, batch: Microbatch) -> Tensor:
        """(B, T) values, 0 at padding; on the CPU."""
        return self.values_with_final(batch)[0]

    def values_with_final(self, batch: Microbatch) -> tuple[Tensor, Tensor]:
        """(B, T) values, and (B,) the value behind each row's last token; on the CPU."""
        values, final = self(batch)
        return values, final

    def forward(self, batch: Microbatch) -> tuple[Tensor, Tensor]:
        """As `values_with_final`; wrappers hook in here."""
        hidden = _hidden_states(self.backbone, batch)
        values = self.value_head(hidden[batch.rows, batch.positions]).squeeze(-1).float().cpu()  # (N,)
        last = hidden[torch.arange(len(hidden)), batch.last_positions]  # (B, H)
        final = self.value_head(last).squeeze(-1).float().cpu()
        return scatter(values, batch.mask), final.clone()  # a view could be changed behind the back of a wrapper


class ActorCritic(nn.Module):
    """Both networks as one module, so that one wrapper, one optimiser and one checkpoint hold them.

    Args:
        actor: The policy.
        critic: None where the estimator needs none.
    """

    def __init__(self, actor: CausalLM, critic: Critic | None) -> None:
        super().__init__()
        self.actor = actor
        self.critic = critic
        self.eval()

    def parameter_groups(self, learning_rate: float, critic_learning_rate: float) -> list[dict[str, Any]]:
        """A group for each network, actor first, of the parameters that learn."""
        groups: list[dict[str, Any]] = [{"params": learning(self.actor), "lr": learning_rate}]
        if self.critic is not None:
            groups.append({"params": learning(self.critic), "lr": critic_learning_rate})
        return groups


def learning(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that are not frozen."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def scatter(tokens: Tensor, mask: Tensor) -> Tensor:
    """(N,) values of the real tokens to where they belong in (B, T), 0 elsewhere."""
    return tokens.new_zeros(mask.shape).masked_scatter(mask, tokens)


def microbatches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Row indices in groups of at most `size` rows of similar length, so that little is padded.

    The same rows always make the same groups: the pass before an update and its first pass see equal shapes.
    """
    order = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    return [order[start : start + size] for start in range(0, len(order), size)]


def _hidden_states(backbone: nn.Module, batch: Microbatch) -> Tensor:
    """(B, L, H) last hidden states."""
    device = next(backbone.parameters()).device
    attention_mask = batch.attention_mask.to(device)
    hidden: Tensor = backbone(
        input_ids=batch.token_ids.to(device),
        attention_mask=attention_mask,
        position_ids=masked_positions(attention_mask),
        use_cache=False,
    ).last_hidden_state
    return hidden
