"""Sampling in many small steps through diffusers' own Euler scheduler, with classifier-free guidance."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.target_time import TIME_SCALE
from twinflow_core.flow.targets import guided

# (x_t, t, conditioning) -> velocity at r = t
InstantVelocity = Callable[[Tensor, Tensor, Conditioning], Tensor]
# (conditional velocity, unconditional velocity, scale) -> guided velocity
Guide = Callable[[Tensor, Tensor, float], Tensor]


@torch.no_grad()
def sample_many_steps(
    velocity: InstantVelocity,
    noise: Tensor,
    conditioning: Conditioning,
    empty: Conditioning,
    scheduler: FlowMatchEulerDiscreteScheduler,
    guidance: float,
    guide: Guide = guided,
) -> Tensor:
    """Latents [B, C, H, W] after the scheduler's Euler steps; with guidance each costs two evaluations.

    Args:
        velocity: the instantaneous velocity of the network.
        noise: [B, C, H, W], standard normal.
        conditioning: the prompts of the B rows.
        empty: the empty prompt, one row.
        scheduler: set for its steps (`Backbone.many_step_scheduler`); this call uses it up.
        guidance: scale of `guide`; 1 samples without guidance at half the cost.
        guide: the family's own guidance (`Backbone.guide`).
    """
    rows = len(noise)
    both = Conditioning.cat([conditioning, empty.repeat(rows)])
    x_t = noise
    for timestep in scheduler.timesteps:
        t = torch.full((rows,), float(timestep) / TIME_SCALE, dtype=noise.dtype, device=noise.device)
        if guidance == 1:
            v = velocity(x_t, t, conditioning)
        else:
            c, u = velocity(x_t.repeat(2, 1, 1, 1), t.repeat(2), both).chunk(2)
            v = guide(c, u, guidance)
        x_t = scheduler.step(v, timestep, x_t, return_dict=False)[0]
    return x_t
