"""A network whose transformer holds bfloat16: half the memory, and every layer computes in it."""

from __future__ import annotations

import torch

from twinflow_core.backbones.lora import is_lora
from twinflow_core.backbones.quantized import QuantizedLinear
from twinflow_core.backbones.velocity import Velocity


def shorten(velocity: Velocity) -> None:
    """Round the transformer to bfloat16, in place: all of it but low-rank weights.

    Times and the target time stay in float32. Latents and prompts are rounded on their way in,
    the velocity comes out in the type of the latents as before.
    """
    for name, module in velocity.transformer.named_modules():
        if isinstance(module, QuantizedLinear) or is_lora(f"{name}."):
            continue
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.to(torch.bfloat16)
        for key, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point():
                setattr(module, key, buffer.to(torch.bfloat16))
    velocity.weight_type = torch.bfloat16


def lengthened_copy(velocity: Velocity) -> Velocity:
    """A copy, see `Velocity.copy`, in which whatever is trained has float32: what an average needs."""
    twin = velocity.copy()
    lengthen_like(twin, velocity)
    return twin


def lengthen_like(twin: Velocity, velocity: Velocity) -> None:
    """Give the copy of a network float32, in place, if what is trained of the network has bfloat16.

    Each step moves an average by a small part of its distance from the weights, far below what bfloat16 tells apart.
    """
    if any(p.requires_grad and p.dtype == torch.bfloat16 for p in velocity.parameters()):
        twin.transformer.float()
        twin.weight_type = None
