"""A TwinFlow step that evaluates every row for every term, as the authors' code does: 7.75 a row at order 2.

Gradient 3, fakes 1/4, both sides of the guidance on all rows 2, recursive consistency on all rows 2, rectification
1/2. Rows that a term does not concern are computed and thrown away, and nothing shares a call. Under `COMPUTES` the
loss is the one of `twinflow_loss`, to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.flow.losses import robust, squared_error, time_weight
from twinflow_core.flow.path import expand, interpolate, one_step_sample
from twinflow_core.flow.targets import (
    guided_target,
    rcgm_error,
    rcgm_integral,
    rcgm_start,
    shifted_target,
    velocity_difference,
)
from twinflow_core.training.roles import ROLES, RoleCounts
from twinflow_core.training.step import Batch, Networks
from twinflow_core.training.twinflow_draws import StepDraws

# The options whose loss this is; no other value of them is known here.
COMPUTES: dict[str, Any] = {
    "objective": "twinflow",
    "real_velocity": "online",
    "fake_velocity": "online",
    "one_step_target": "recursive",
    "near_target": "recursive",
    "fakes": "own",
    "rectify_target": "clamped",
    "data_free": False,
}
# What the count of 7.75 is at.
AT_ITS_COUNT: dict[str, Any] = {
    **COMPUTES,
    "order": 2,
    "guidance": 0.8,
    "rectify_weight": 0.5,
    "adversarial_weight": 1.0,
    "shares": dict.fromkeys(ROLES, 1.0),
}


def naive_loss(
    networks: Networks, batch: Batch, draws: StepDraws, counts: RoleCounts, options: FinetuneParams
) -> Tensor:
    """The same loss as `twinflow_loss` for the same arguments.

    Raises:
        ValueError: the options or the networks ask for what this step does not compute.
    """
    other = [name for name, value in COMPUTES.items() if getattr(options, name) != value]
    other += [name for name in ("base", "fake") if getattr(networks, name) is not None]
    if other:
        raise ValueError(f"the plain step has another {', '.join(other)}")
    x = _with_fakes(networks, batch, draws, counts)
    t, r, conditioning = draws.t, draws.r, batch.conditioning
    x_t, v = interpolate(x, draws.z, t), draws.z - x
    prediction = networks.online(x_t, t, r, conditioning)
    with torch.no_grad():
        v_star = _guided(networks, batch, x_t, v, t, options.guidance)
        x_1, t_1 = rcgm_start(x_t, t, r, v_star, options.delta)
        integral = rcgm_integral(
            lambda x_i, t_i, r_i: networks.averaged(x_i, t_i, r_i, conditioning), x_1, t_1, r, options.order
        )
        error = rcgm_error(prediction, integral, v_star, t, r, options.delta)
        fake = expand(t < 0, x)
        target = torch.where(fake, v, shifted_target(prediction, error))
    weight = torch.where(t < 0, torch.full_like(t, options.adversarial_weight), time_weight(t, r))
    loss = (robust(squared_error(prediction, target)) * weight).mean()
    if counts.one_step:
        loss = loss + options.rectify_weight * _rectification(networks, batch, draws, counts, prediction)
    return loss


@torch.no_grad()
def _with_fakes(networks: Networks, batch: Batch, draws: StepDraws, counts: RoleCounts) -> Tensor:
    if counts.fake == 0:
        return batch.x
    first = counts.total - counts.fake
    conditioning = batch.conditioning[first:]
    fakes = one_step_sample(lambda x_t, t, r: networks.online(x_t, t, r, conditioning), draws.fake_z)
    return torch.cat([batch.x[:first], fakes])


def _guided(networks: Networks, batch: Batch, x_t: Tensor, v: Tensor, t: Tensor, strength: float) -> Tensor:
    conditional = networks.averaged(x_t, t, t, batch.conditioning)
    unconditional = networks.averaged(x_t, t, t, batch.empty.repeat(len(t)))
    guided = guided_target(v, conditional, unconditional, strength)
    return torch.where(expand((t > 0) & (t < 1), v), guided, v)


def _rectification(
    networks: Networks, batch: Batch, draws: StepDraws, counts: RoleCounts, prediction: Tensor
) -> Tensor:
    rows, t = slice(0, counts.one_step), draws.rectify_t
    f, conditioning = prediction[rows], batch.conditioning[rows]
    with torch.no_grad():
        x_t = interpolate(draws.z[rows] - f, draws.rectify_z, t)
        v_real = networks.online(x_t, t, t, conditioning)
        v_fake = networks.online(x_t, -t, -t, conditioning)
        target = f + velocity_difference(v_real, v_fake)
    return robust(squared_error(f, target)).mean()
