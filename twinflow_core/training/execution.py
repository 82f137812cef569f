"""How the networks run: short floats on CUDA, compiled if asked."""

from __future__ import annotations

from typing import Any, Literal

import torch

from twinflow_core.backbones.velocity import Velocity
from twinflow_core.training.step import Network, Networks

Precision = Literal["auto", "float32", "bfloat16"]


def reduced_precision(device: torch.device, precision: Precision) -> torch.autocast:
    """A context in which matrix products run in bfloat16; `auto` means on CUDA alone.

    Weights, averages, times, targets and losses stay in float32.
    """
    short = precision == "bfloat16" or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=short)


def make_networks(online: Velocity, averaged: Velocity, base: Velocity | None, compiled: bool) -> Networks:
    """The networks as a step calls them.

    Args:
        online, averaged, base: the modules.
        compiled: whether to compile them. Row counts differ from call to call, so shapes are left open.
    """

    def prepared(network: Velocity) -> Network:
        wrapped: Any = torch.compile(network, dynamic=True) if compiled else network
        return wrapped

    return Networks(prepared(online), prepared(averaged), prepared(base) if base is not None else None)
