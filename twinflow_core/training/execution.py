"""How the networks run: short floats on CUDA, compiled if asked."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.quantized import QuantizedLinear
from twinflow_core.backbones.short_weights import lengthen_like, lengthened_copy
from twinflow_core.backbones.velocity import Velocity
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.training.fake_score import as_fake_score, make_fake_score
from twinflow_core.training.ranks import Ranks
from twinflow_core.training.sharding import borrowed_copy, fill_from, shard, without_values
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


class Twins(NamedTuple):
    """What stands beside the network in training, all of it equal to that network in the beginning.

    Attributes:
        averaged: its exponential moving average.
        base: frozen, where the options ask for it.
        fake_score: trained on the fakes, where the options ask for it.
    """

    averaged: Velocity
    base: Velocity | None
    fake_score: Velocity | None


def make_twins(online: Velocity, options: FinetuneParams, ranks: Ranks) -> Twins:
    """The twins that the options ask for.

    Args:
        online: the network; sharded in place where several ranks train. Until then it may be on the CPU: no device
            ever holds a whole one.
        options: the finetune section.
        ranks: who shares the weights.
    """
    if ranks.mesh is not None:
        return _twins_in_shards(online, options, ranks.mesh)
    base = frozen_base(online) if options.needs_base else None
    fake_score = make_fake_score(base, options) if base is not None and options.has_fake_score else None
    return Twins(lengthened_copy(online), base, fake_score)


def _twins_in_shards(online: Velocity, options: FinetuneParams, mesh: DeviceMesh) -> Twins:
    averaged = without_values(online)
    lengthen_like(averaged, online)
    base = without_values(online) if options.needs_base else None
    # Its low-rank weights are drawn on whole layers: it is made before the network is cut.
    fake_score = as_fake_score(borrowed_copy(online), options) if options.has_fake_score else None
    device = mesh.device_type
    # Gathered in bfloat16, the scales of weights in few bits would be rounded too; other weights of theirs are few.
    few_bits = any(isinstance(module, QuantizedLinear) for module in online.modules())
    short = is_short(device, options.precision) and not few_bits
    for network in (fake_score, online, averaged, base):
        if network is not None:
            shard(network, network.transformer, network.target_time.embed, mesh, short)
    for empty in (averaged, base):
        if empty is not None:
            fill_from(empty, online, device)
    return Twins(averaged, base, fake_score)


def make_networks(online: Velocity, twins: Twins, compiled: bool) -> Networks:
    """The networks as a step calls them.

    Args:
        online: the network in training.
        twins: those beside it.
        compiled: whether to compile them, see `compiled_by_size`.
    """

    def prepared(network: Velocity) -> Network:
        return compiled_by_size(network) if compiled else network

    base, fake = (prepared(each) if each is not None else None for each in (twins.base, twins.fake_score))
    return Networks(prepared(online), prepared(twins.averaged), base, fake)


def networks_of_lanes(online: Velocity, twins: Twins, count: int, compiled: bool) -> list[Networks]:
    """The networks of each lane (see `lanes`), all of the same weights: the given ones, and more of them to call.

    Args:
        online: the network in training.
        twins: those beside it.
        count: how many lanes.
        compiled: see `make_networks`; goes with one lane.
    """
    first = make_networks(online, twins, compiled)
    return [first, *(_for_another_thread(online, twins) for _ in range(count - 1))]


def _for_another_thread(online: Velocity, twins: Twins) -> Networks:
    base, fake = (each and each.for_another_thread() for each in (twins.base, twins.fake_score))
    return Networks(online.for_another_thread(), twins.averaged.for_another_thread(), base, fake)


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
