"""Networks in shards (FSDP2): every rank holds a slice of each weight and gathers a block's while it runs it."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

Network = TypeVar("Network", bound=nn.Module)


def shard(network: nn.Module, transformer: nn.Module, mesh: DeviceMesh, short: bool) -> None:
    """Cut the weights of a network in place: a group for each block of its transformer, one for the rest.

    The blocks are the children of the transformer's own lists of modules, whatever the family calls them.

    Args:
        network: called through its own `forward` from here on. Hooks must be on it already: those that are
            registered later would run outside the gathering. Weights on the CPU move to the mesh's device one
            block at a time.
        transformer: the part of it whose blocks are gathered one by one.
        mesh: one dimension, all ranks.
        short: whether blocks are gathered in bfloat16, for a network that runs under autocast. Autocast alone
            would keep a short copy of every gathered weight until the backward pass.
    """
    # Times pass through blocks as they are: a policy that casts inputs would round them.
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if short else None, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    lists = [child for child in transformer.children() if isinstance(child, nn.ModuleList)]
    for block in [block for blocks in lists for block in blocks]:
        _summed(fully_shard(block, mesh=mesh, reshard_after_forward=True, mp_policy=policy))
    # The rest holds the time embeddings, in full precision. It is cut again after each call, so that whoever
    # reads the weights between two calls finds the shards.
    _summed(fully_shard(network, mesh=mesh, reshard_after_forward=True))


def local(tensor: Tensor) -> Tensor:
    """This rank's slice of a tensor; a tensor that is not sharded is its own."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def put(target: Tensor, value: Tensor) -> None:
    """Copy a whole tensor, which every rank has, into one that may be sharded."""
    if isinstance(target, DTensor):
        sharded = distribute_tensor(
            value.to(target.device), target.device_mesh, target.placements, src_data_rank=None
        )
        target.to_local().copy_(sharded.to_local())
    else:
        target.copy_(value)


@torch.no_grad()
def gather_into(target: nn.Module | None, network: nn.Module) -> None:
    """Copy the weights of a sharded network into a whole one on one rank, a tensor at a time.

    Args:
        target: a network of the same structure, or None on the ranks that only give.
        network: sharded; all ranks call this together.
    """
    targets = target.state_dict() if target is not None else None
    for name, value in network.state_dict().items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if targets is not None:
            targets[name].copy_(whole)


def without_values(network: Network) -> Network:
    """A copy of a whole network for `fill_from`: frozen, and its parameters take no memory yet."""
    memo = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
        for parameter in network.parameters()
    }
    return copy.deepcopy(network, memo).eval()


@torch.no_grad()
def fill_from(twin: nn.Module, network: nn.Module, device: str) -> None:
    """Give a copy that was made without values, and is sharded like its original by now, the original's values."""
    twin.to_empty(device=device)
    for empty, parameter in zip(twin.parameters(), network.parameters(), strict=True):
        local(empty).copy_(local(parameter))
    for buffer, original in zip(twin.buffers(), network.buffers(), strict=True):
        buffer.copy_(original)


def _summed(module: FSDPModule) -> None:
    """Add up the ranks' gradients: each rank's loss is already its part of the step's mean."""
    module.set_gradient_divide_factor(1.0)
    # Gloo has no scaled sum.
    module.set_force_sum_reduction_for_comms(True)
