"""The ranks that learn together: how they find each other, which rows each takes, what they add up, how they fail.

Rank 0 leads: it alone talks to services and writes files. The others do what it tells them (`trainer.ppo.ranks`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.ppo.choices import DistributedWay
from trainer.ppo.errors import NoDevice, NoTeam, RankFailed
from trainer.ppo.model import microbatches

_IDLE = timedelta(days=1)
"""Followers wait so long to be told something: rollouts and scores take their time, and each call has a deadline."""

_CAUSE = "palate/cause"
_HOW = "start it as `torchrun --nproc-per-node N --no-python palate train ppo ...`"


@dataclass(frozen=True, slots=True)
class Cut:
    """Rows of one forward pass of one rank; one that does not count only keeps step with the other ranks."""

    rows: list[int]
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Team:
    """This process among those that learn together; alone, unless told otherwise.

    Attributes:
        rank: Of this process; 0 leads.
        size: Processes in all.
        orders: The group in which rank 0 tells the others what to do; None where it is alone.
    """

    rank: int = 0
    size: int = 1
    orders: Any = None

    def cuts(self, lengths: Sequence[int], most: int) -> list[Cut]:
        """The rows of a minibatch that this rank computes, as many passes on every rank and neighbours in length.

        Args:
            lengths: Of all rows of the minibatch.
            most: Rows in a pass.
        """
        whole = microbatches(lengths, min(most, -(-len(lengths) // self.size)))
        mine = [Cut(rows) for rows in whole[self.rank :: self.size]]
        passes = -(-len(whole) // self.size)
        return mine + [Cut(whole[0][:1], counts=False)] * (passes - len(mine))

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, on each."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def gathered(self, value: Any) -> list[Any]:
        """Every rank's value, on each, in the order of ranks."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def tell(self, order: Any) -> None:
        """Rank 0 says what all do next."""
        if self.size > 1:
            dist.broadcast_object_list([order], src=0, group=self.orders)

    def told(self) -> Any:
        """What rank 0 says."""
        order = [None]
        dist.broadcast_object_list(order, src=0, group=self.orders)
        return order[0]


@contextmanager
def joined(way: DistributedWay, device: str, timeout: float) -> Iterator[Team]:
    """This process' place in the team that torchrun has started; alone where `way` is "none".

    The first rank that fails leaves its cause where the others find it: they end too, and say the same.

    Args:
        way: How gradients are put together.
        device: What the networks are on, "cpu" or "cuda".
        timeout: Seconds in which all ranks must have come to a collective operation.

    Raises:
        NoTeam: The process was not started as `way` needs it.
        RankFailed: Another rank failed, or did not come in time.
    """
    if not _started_by_torchrun(way):
        yield Team()
        return
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    team = Team(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo", timeout=_IDLE))
    try:
        yield team
        if team.rank == 0:
            team.tell(None)
    except Exception as error:
        _explain(team, error)
        raise
    dist.destroy_process_group()


def local_device(device: str) -> torch.device:
    """What the networks of this rank are on: with "cuda", a GPU for each rank of a machine.

    Raises:
        NoDevice: There is no GPU.
    """
    if device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise NoDevice(f"--device {device}, but PyTorch sees no GPU here; use --device cpu")
    own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(own)
    return own


def _started_by_torchrun(way: DistributedWay) -> bool:
    """Whether there are other ranks to find; refuses a way and a start that contradict each other."""
    size = os.environ.get("WORLD_SIZE")
    if way == "none" and size not in (None, "1"):
        raise NoTeam(f"torchrun has started {size} processes: add --distributed ddp or --distributed fsdp2")
    if way != "none" and (size is None or "RANK" not in os.environ):
        raise NoTeam(f"--distributed {way} needs torchrun: {_HOW}, or leave --distributed out")
    return way != "none"


def _explain(team: Team, error: Exception) -> None:
    """Leaves the cause for the other ranks; raises theirs where one of them was first."""
    mine = f"rank {team.rank}: {type(error).__name__}: {error}"
    store = dist.distributed_c10d._get_default_store()
    try:
        first = store.compare_set(_CAUSE, "", mine).decode()
    except dist.DistError as gone:
        raise RankFailed(f"{mine}. What torchrun keeps for all ranks is gone too: {gone}") from error
    if first != mine:
        raise RankFailed(f"another rank failed first, and the run ends with it. {first}") from error
    if isinstance(error, (dist.DistError, RuntimeError)) and not isinstance(error, torch.OutOfMemoryError):
        raise RankFailed(
            f"{mine}. Where this is a connection or a timeout, another rank has died or hangs: look at its output "
            "(torchrun names it), then --resume"
        ) from error
