"""MeanFlow (arXiv 2505.13447): the mean velocity from its own derivative along the path.

F(x_t, t, r) is the mean of v over [r, t] exactly if  F = v - (t - r) dF/dt,  dF/dt = v . grad_x F + dF/dt at fixed r.
Latents are [B, C, H, W], times [B].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from twinflow_core.flow.path import Velocity, expand


def meanflow_target(v: Tensor, derivative: Tensor, t: Tensor, r: Tensor) -> Tensor:
    """v - (t - r) dF/dt; plain v at r = t."""
    return v - expand(t - r, v) * derivative


@torch.no_grad()
def backward_difference(
    velocity: Velocity, prediction: Tensor, x_t: Tensor, t: Tensor, r: Tensor, v: Tensor, step: float
) -> Tensor:
    """dF/dt by one evaluation a little closer to the data, which no attention kernel has to differentiate.

    Where t - r is less than the step, F is asked below its target time, where nothing trains it: that derivative is
    an extrapolation over at most the step, and `meanflow_target` multiplies it by a t - r smaller than the step.

    Args:
        velocity: F.
        prediction: F(x_t, t, r).
        x_t: the states.
        t: their times, above 0.
        r: the target times.
        v: the direction of the path.
        step: the difference in t; at most half of t is taken, so that no time turns negative.
    """
    small = torch.minimum(torch.full_like(t, step), t / 2)
    before = velocity(x_t - expand(small, x_t) * v, t - small, r)
    return (prediction - before) / expand(small, x_t)


def forward_mode(velocity: Velocity, x_t: Tensor, t: Tensor, r: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """F(x_t, t, r) with its gradient, and dF/dt exactly and without one, in one forward-mode pass.

    Attention runs in its plain form, the only one that torch can differentiate forwards.
    """
    with sdpa_kernel(SDPBackend.MATH):
        both: tuple[Any, ...] = torch.func.jvp(
            lambda x, time: velocity(x, time, r), (x_t, t), (v, torch.ones_like(t))
        )
    return both[0], both[1].detach()
