"""Networks spread over ranks: DDP copies them, FSDP2 cuts every parameter in pieces; both give the same gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from trainer.ppo.choices import DistributedWay
from trainer.ppo.model import ActorCritic, CausalLM, learning


@dataclass(frozen=True, slots=True)
class Networks:
    """What computes on this rank.

    Attributes:
        model: Holds the parameters that the optimiser steps.
        actor: Called for logprobs with a gradient.
        critic: Called for values with a gradient; None where there is none.
        loss_scale: Both ways average gradients over ranks; a loss times this makes the average the sum.
        local: Inside of it gradients are added up on this rank alone.
    """

    model: ActorCritic
    actor: Callable[..., Any]
    critic: Callable[..., Any] | None
    loss_scale: float = 1.0
    local: Callable[[], AbstractContextManager[None]] = nullcontext


def alone(model: ActorCritic) -> Networks:
    """Of a single process."""
    return Networks(model, model.actor, model.critic)


def spread(model: ActorCritic, way: DistributedWay, device: torch.device, size: int) -> Networks:
    """Networks that learn together with those of the other ranks.

    Args:
        model: Whole, on the CPU, the same on every rank; not changed by FSDP2, nor where there is a GPU.
        way: "ddp" or "fsdp2"; "none" = a single process.
        device: Of this rank.
        size: Ranks in all.
    """
    if way == "fsdp2":
        cut = copy.deepcopy(model)
        for network in (cut.actor, cut.critic):
            if network is not None:
                shard(network, device)
        return Networks(cut, cut.actor, cut.critic, float(size))
    placed = model if device.type == "cpu" else copy.deepcopy(model).to(device)
    if way == "none":
        return alone(placed)
    return _copied(placed, device, size)


def shard(network: nn.Module, device: torch.device) -> None:
    """Cuts a network's parameters over all ranks, block by block: only one block is whole at a time."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    if device.type != "cpu":
        network.to(device)
    for block in _blocks(network):
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)
    if isinstance(network, CausalLM):
        register_fsdp_forward_method(network, "logits")


def whole(tensor: Tensor) -> Tensor:
    """A tensor from its pieces, the same on every rank; one that is whole already, as it is."""
    if isinstance(tensor, DTensor):
        full: Tensor = tensor.full_tensor()
        return full
    return tensor


def handed_out(full: Tensor | None, like: Tensor) -> Tensor:
    """This rank's part of a tensor that rank 0 has, laid out as `like` is.

    Args:
        full: The tensor on rank 0; None on the others.
        like: Of the same shape.
    """
    mine = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    if full is not None:
        mine.copy_(full)
    if isinstance(like, DTensor):
        return distribute_tensor(mine, like.device_mesh, like.placements)
    if dist.is_initialized():
        dist.broadcast(mine, src=0)
    return mine


@torch.no_grad()
def collect_weights(networks: nn.Module, target: nn.Module | None) -> None:
    """Brings what learns into `target` on rank 0, whole and one after the other; other ranks give their pieces."""
    parameters = learning(networks)
    targets = [None] * len(parameters) if target is None else learning(target)
    for parameter, place in zip(parameters, targets, strict=True):
        full = whole(parameter.detach())
        if place is not None:
            place.copy_(full)


@torch.no_grad()
def hand_out_weights(networks: nn.Module, source: nn.Module | None) -> None:
    """Brings what learns of rank 0's `source` into every rank's networks; what is frozen, each has read itself."""
    parameters = learning(networks)
    sources = [None] * len(parameters) if source is None else learning(source)
    for parameter, full in zip(parameters, sources, strict=True):
        parameter.copy_(handed_out(full, parameter))


def collected_state(optimizer: Optimizer) -> dict[str, Any]:
    """What a single process' optimiser would hold, on the CPU; every rank must ask for it."""
    state = optimizer.state_dict()
    values = {
        index: {name: whole(value).cpu() if isinstance(value, Tensor) else value for name, value in one.items()}
        for index, one in state["state"].items()
    }
    return {"state": values, "param_groups": state["param_groups"]}


def small_state(state: dict[str, Any]) -> dict[str, Any]:
    """`state` with None for every tensor that has the shape of its parameter: those travel by `handed_out`."""
    values = {
        index: {name: None if _is_large(value) else value for name, value in one.items()}
        for index, one in state["state"].items()
    }
    return {"state": values, "param_groups": state["param_groups"]}


def hand_out_state(optimizer: Optimizer, small: dict[str, Any], full: dict[str, Any] | None) -> None:
    """Brings an optimiser's state, which rank 0 has in full, to every rank."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for index, one in small["state"].items():
        state[index] = dict(one)
        for name in [name for name, value in one.items() if value is None]:
            mine = None if full is None else full["state"][index][name]
            state[index][name] = handed_out(mine, parameters[index].detach())
    optimizer.load_state_dict({"state": state, "param_groups": small["param_groups"]})


def _copied(model: ActorCritic, device: torch.device, size: int) -> Networks:
    ids = None if device.type == "cpu" else [device]
    actor = DistributedDataParallel(model.actor, device_ids=ids)
    critic = None if model.critic is None else DistributedDataParallel(model.critic, device_ids=ids)

    @contextmanager
    def local() -> Iterator[None]:
        with actor.no_sync(), critic.no_sync() if critic is not None else nullcontext():
            yield

    return Networks(model, actor, critic, float(size), local)


def _blocks(network: nn.Module) -> list[nn.Module]:
    """The layers of a transformer: the members of its longest list of modules."""
    lists = [module for module in network.modules() if isinstance(module, nn.ModuleList)]
    return list(max(lists, key=len, default=[]))


def _is_large(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0
