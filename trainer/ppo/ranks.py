"""What rank 0 has the others do with it: look at a batch, learn from it, give back their parts of the state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainer.ppo.checkpoint import CheckpointFolder, Restored, Stateful
from trainer.ppo.evaluate import RefPolicy
from trainer.ppo.invariants import Suspects
from trainer.ppo.model import ActorCritic
from trainer.ppo.parallel import collect_weights, collected_state, hand_out_state, hand_out_weights, small_state
from trainer.ppo.stats import UpdateStats
from trainer.ppo.team import Team
from trainer.ppo.update import Updater
from trainer.types import Evaluated, Sequences, TrainingBatch


@dataclass(frozen=True, slots=True)
class Look:
    """Evaluate a batch."""

    sequences: Sequences
    first_epoch: Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Learn:
    """Learn from a batch, with these learning rates; then give back the actor's weights."""

    batch: TrainingBatch
    minibatches: Sequence[Sequence[int]]
    rates: Sequence[float]
    train_policy: bool


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Give back all weights and the optimiser's state."""


@dataclass(frozen=True, slots=True)
class Take:
    """Take the weights and the optimiser's state that rank 0 hands out, which is as described."""

    optimizer: dict[str, Any]


Order = Look | Learn | GiveBack | Take


class HeldState:
    """An optimiser's state without the optimiser, as a checkpoint takes and gives it."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        """The state."""
        assert self.state is not None, "nothing was held"
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Holds `state`."""
        self.state = state


class LeadingUpdater(Updater):
    """Rank 0's updater: the others do the same at the same time, and `model` follows what is learnt.

    Also for a single process whose networks are on a GPU: then nobody else is told.
    """

    def evaluate(self, ref: RefPolicy | None, sequences: Sequences, first_epoch: Sequence[Sequence[int]]) -> Evaluated:
        """As `Updater.evaluate`."""
        self._team.tell(Look(sequences, first_epoch))
        return super().evaluate(ref, sequences, first_epoch)

    def learn(
        self,
        batch: TrainingBatch,
        minibatches: Sequence[Sequence[int]],
        suspects: Suspects | None,
        *,
        train_policy: bool,
    ) -> UpdateStats:
        """As `Updater.learn`; behind it `model.actor` has the new weights."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self._team.tell(Learn(batch, minibatches, rates, train_policy))
        stats = super().learn(batch, minibatches, suspects, train_policy=train_policy)
        self.bring(self.model.actor, self.networks.model.actor)
        return stats

    def whole(self) -> tuple[ActorCritic, Stateful, torch.Generator]:
        """As `Updater.whole`; the parts of all ranks put together."""
        self._team.tell(GiveBack())
        self.bring(self.model, self.networks.model)
        return self.model, HeldState(collected_state(self.optimizer)), self.shuffler

    def restore(self, checkpoints: CheckpointFolder) -> Restored | None:
        """As `Updater.restore`; every rank gets its part."""
        held = HeldState()
        restored = checkpoints.restore(self.model, held, self.shuffler)
        if restored:
            small = small_state(held.state_dict())
            self._team.tell(Take(small))
            hand_out_weights(self.networks.model, self.model)
            hand_out_state(self.optimizer, small, held.state_dict())
        return restored

    def bring(self, target: torch.nn.Module, networks: torch.nn.Module) -> None:
        """Copies weights into `target`, unless it is what computes."""
        if target is not networks:
            collect_weights(networks, target)


def follow(updater: Updater, ref: RefPolicy | None, team: Team) -> None:
    """Does what rank 0 says until it says that the run is done.

    Args:
        updater: Of this rank.
        ref: The reference policy where it is local; None where rank 0 asks a service.
        team: The ranks.
    """
    while (order := team.told()) is not None:
        _obey(order, updater, ref)


def _obey(order: Order, updater: Updater, ref: RefPolicy | None) -> None:
    networks = updater.networks.model
    match order:
        case Look(sequences, first_epoch):
            updater.evaluate(ref, sequences, first_epoch)
        case Learn(batch, minibatches, rates, train_policy):
            for group, rate in zip(updater.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            updater.learn(batch, minibatches, None, train_policy=train_policy)
            collect_weights(networks.actor, None)
        case GiveBack():
            collect_weights(networks, None)
            collected_state(updater.optimizer)
        case Take(small):
            hand_out_weights(networks, None)
            hand_out_state(updater.optimizer, small, None)
