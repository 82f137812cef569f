"""Sampling a TwinFlow model in k evaluations: jump to the data, mix with fresh noise, jump again.

Equals diffusers' `FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)` at `few_step_times(k)`; that
scheduler draws its noise inside, here it is given, so that every model compared sees the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twinflow_core.flow.path import Velocity, interpolate, predict_data


def few_step_times(steps: int) -> list[float]:
    """t_i = 1 - i / k: [1.0] for one step, [1.0, 0.5] for two.

    Raises:
        ValueError: fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"sampling needs at least one step, not {steps}")
    return [1 - i / steps for i in range(steps)]


@torch.no_grad()
def sample_few_steps(velocity: Velocity, noises: Tensor) -> Tensor:
    """Latents [B, C, H, W] after k evaluations of F(x_t, t, 0).

    Args:
        velocity: the network with its prompts bound.
        noises: [k, B, C, H, W], standard normal; the first is x_1, the others are mixed in between the steps.
    """
    x = torch.zeros_like(noises[0])
    zero = noises.new_zeros(noises.shape[1])
    for noise, time in zip(noises, few_step_times(len(noises)), strict=True):
        t = zero + time
        # At t = 1 nothing of x is left in the mixture: the first step starts from pure noise.
        x_t = interpolate(x, noise, t)
        x = predict_data(x_t, t, velocity(x_t, t, zero))
    return x
