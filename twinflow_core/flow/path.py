"""The linear path between data and noise, and the jumps along it (arXiv 2512.05150, §3).

`x_t = t z + (1 - t) x` with data `x`, noise `z ~ N(0, I)` and velocity `v = dx_t/dt = z - x`; t = 1 is noise,
t = 0 is data. On the negative branch (t < 0) the same formulas hold with |t|.

Tensors are latents of shape [B, C, H, W]; times are of shape [B].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# (x_t [B, C, H, W], t [B], r [B]) -> F(x_t, t, r) [B, C, H, W]
Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]


def expand(t: Tensor, like: Tensor) -> Tensor:
    """A time per row, [B], shaped so that it broadcasts over the latents `like`, [B, 1, 1, 1]."""
    return t.view(-1, *[1] * (like.ndim - 1))


def interpolate(x: Tensor, z: Tensor, t: Tensor) -> Tensor:
    """x_t = |t| z + (1 - |t|) x."""
    s = expand(t.abs(), x)
    return s * z + (1 - s) * x


def jump(x_t: Tensor, t: Tensor, r: Tensor, velocity: Tensor) -> Tensor:
    """x_r = x_t - (t - r) F(x_t, t, r), the few-step map of the positive branch."""
    return x_t - expand(t - r, x_t) * velocity


def predict_data(x_t: Tensor, t: Tensor, velocity: Tensor) -> Tensor:
    """x = x_t - |t| v."""
    return x_t - expand(t.abs(), x_t) * velocity


def one_step_sample(velocity: Velocity, z: Tensor) -> Tensor:
    """x = z - F(z, 1, 0): the generator that TwinFlow trains, at 1 NFE."""
    one = torch.ones(z.shape[0], dtype=z.dtype, device=z.device)
    return z - velocity(z, one, torch.zeros_like(one))
