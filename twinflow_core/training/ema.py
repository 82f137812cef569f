"""Exponential moving average of a network's parameters."""

from __future__ import annotations

import torch
from torch import nn

from twinflow_core.training.sharding import local


def effective_decay(decay: float, updates: int) -> float:
    """The decay after `updates` updates: min(decay, (1 + n) / (10 + n)), so that early weights are forgotten.

    Args:
        decay: the final decay, in [0, 1); 0 makes the average follow the online weights.
        updates: how many updates were done before this one.
    """
    return min(decay, (1 + updates) / (10 + updates))


@torch.no_grad()
def update_average(average: nn.Module, online: nn.Module, decay: float) -> None:
    """average = decay average + (1 - decay) online, in place, for every parameter that is trained.

    Of networks in shards each rank averages its own.
    """
    trained = [
        (local(a), local(o))
        for a, o in zip(average.parameters(), online.parameters(), strict=True)
        if o.requires_grad
    ]
    alike = [(a, o) for a, o in trained if a.dtype == o.dtype]
    torch._foreach_lerp_([a for a, _ in alike], [o for _, o in alike], 1 - decay)
    # One by one, so that no second float32 copy of a bfloat16 network stands beside its average.
    for a, o in trained:
        if a.dtype != o.dtype:
            a.lerp_(o.to(a.dtype), 1 - decay)
