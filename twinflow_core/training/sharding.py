"""Networks in shards (FSDP2): every rank holds a slice of each weight and gathers a block's while it runs it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

Network = TypeVar("Network", bound=nn.Module)


def shard(
    network: nn.Module, transformer: nn.Module, apart: nn.Module, mesh: DeviceMesh, short: bool
) -> None:
    """Cut the weights of a network in place: a group for each block of its transformer, one apart, one for the rest.

    The blocks are the children of the transformer's own lists of modules, whatever the family calls them.

    Args:
        network: called through its own `forward` from here on. Hooks must be on it already: those that are
            registered later would run outside the gathering. Weights on the CPU move to the mesh's device one
            block at a time.
        transformer: the part of it whose blocks are gathered one by one.
        apart: a part whose weights may be in another type than the rest: what is trained in a group has one type.
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
    exact = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    for rest in (apart, network):
        _summed(fully_shard(rest, mesh=mesh, reshard_after_forward=True, mp_policy=exact))


def local(tensor: Tensor) -> Tensor:
    """This rank's slice of a tensor; a tensor that is not sharded is its own."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def first_row(tensor: Tensor) -> int:
    """Where in the whole tensor this rank's rows begin; 0 of a tensor that is not sharded."""
    if not isinstance(tensor, DTensor):
        return 0
    _, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return offset[0]


def rows_like(rows: Tensor, like: Tensor) -> Tensor:
    """What was made of this rank's rows of `like`, a row of each, as a tensor that is sharded as `like` is."""
    if not isinstance(like, DTensor):
        return rows
    shape = torch.Size((len(like), *rows.shape[1:]))
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(
        rows, like.device_mesh, like.placements, run_check=False, shape=shape, stride=stride
    )


def on_host(part: Tensor, like: Tensor) -> Tensor:
    """A part in the CPU's memory as a tensor that is sharded as `like` is, wherever the parts of that one lie."""
    if not isinstance(like, DTensor):
        return part
    meta = TensorMeta(like.shape, like.stride(), part.dtype)
    # Its own function would move the part to the mesh's device.
    return DTensor(part, DTensorSpec(like.device_mesh, like.placements, meta), requires_grad=False)


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
def gather_into(target: nn.Module | None, weights: dict[str, Tensor]) -> None:
    """Copy sharded weights into a whole network on one rank, a tensor at a time.

    Args:
        target: a network with weights of these names, or None on the ranks that only give.
        weights: by name; all ranks call this together.
    """
    targets = target.state_dict() if target is not None else None
    for name, value in weights.items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if targets is not None:
            targets[name].copy_(whole)


def without_values(network: Network) -> Network:
    """A copy of a whole network for `fill_from`: frozen, and its parameters take no memory yet."""
    return _frozen_copy(network, lambda parameter: torch.empty_like(parameter, device="meta"))


def borrowed_copy(network: Network) -> Network:
    """A copy whose frozen parameters lie in the network's own memory, for `shard`, which moves or copies its part."""
    return _frozen_copy(network, Tensor.detach)


def _frozen_copy(network: Network, values: Callable[[Tensor], Tensor]) -> Network:
    memo = {
        id(parameter): nn.Parameter(values(parameter), requires_grad=False)
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
