"""How the networks run: short floats on CUDA, compiled if asked."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.quantized import QuantizedLinear
from twinflow_core.backbones.short_weights import lengthen_like, lengthened_copy
from twinflow_core.backbones.velocity import Velocity
from twinflow_core.training.ranks import Ranks
from twinflow_core.training.sharding import fill_from, shard, without_values
from twinflow_core.training.step import Network, Networks
from twinflow_core.training.trainable import frozen_base

Precision = Literal["auto", "float32", "bfloat16"]


def reduced_precision(device: torch.device, precision: Precision) -> torch.autocast:
    """A context in which matrix products run in bfloat16, where they are short.

    Weights, averages, times, targets and losses stay in float32.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=is_short(device.type, precision))


def is_short(device_type: str, precision: Precision) -> bool:
    """Whether matrix products run in bfloat16; `auto` means on CUDA alone."""
    return precision == "bfloat16" or (precision == "auto" and device_type == "cuda")


def make_twins(
    online: Velocity, with_base: bool, ranks: Ranks, precision: Precision
) -> tuple[Velocity, Velocity | None]:
    """The average and, if asked for, the frozen base, both equal to the network in training.

    Args:
        online: the network; sharded in place where several ranks train. Until then it may be on the CPU: no device
            ever holds a whole one.
        with_base: whether the objective asks the base.
        ranks: who shares the weights.
        precision: see `is_short`.
    """
    if ranks.mesh is None:
        return lengthened_copy(online), frozen_base(online) if with_base else None
    averaged, base = without_values(online), without_values(online) if with_base else None
    lengthen_like(averaged, online)
    device = ranks.mesh.device_type
    # Gathered in bfloat16, the scales of weights in few bits would be rounded too; other weights of theirs are few.
    few_bits = any(isinstance(module, QuantizedLinear) for module in online.modules())
    short = is_short(device, precision) and not few_bits
    for network in (online, averaged, base):
        if network is not None:
            shard(network, network.transformer, network.target_time.embed, ranks.mesh, short)
            if network is not online:
                fill_from(network, online, device)
    return averaged, base


def make_networks(online: Velocity, averaged: Velocity, base: Velocity | None, compiled: bool) -> Networks:
    """The networks as a step calls them.

    Args:
        online, averaged, base: the modules.
        compiled: whether to compile them, see `compiled_by_size`.
    """

    def prepared(network: Velocity) -> Network:
        return compiled_by_size(network) if compiled else network

    return Networks(prepared(online), prepared(averaged), prepared(base) if base is not None else None)


def compiled_by_size(network: Velocity) -> Network:
    """The network compiled anew for each size of its latents; the number of rows alone is left open.

    Where sizes are left open too, torch 2.13 cannot compile Sana. Compilations of one network would count against those
    of the others: beyond eight in all torch gives up, and runs the rest as it is.
    """
    sizes: dict[torch.Size, Any] = {}

    def call(x_t: Tensor, t: Tensor, r: Tensor | None, conditioning: Conditioning) -> Tensor:
        size = x_t.shape[1:]
        if size not in sizes:
            # Its overloads do not know all of its options.
            compiling: Any = torch.compile
            sizes[size] = compiling(network, isolate_recompiles=True)
        # What is known to differ between two sizes would be left open in the second.
        torch._dynamo.mark_static(x_t, [1, 2, 3])
        velocity: Tensor = sizes[size](x_t, t, r, conditioning)
        return velocity

    return call
