"""One TwinFlow step: from a batch, its draws and the networks to a loss (arXiv 2512.05150, eq. 1, 2, 9, 10).

Cost in forward-equivalents a row at order 2 with four equal roles and guidance, a backward counting as two:
gradient 3, fakes 1/4, guidance 1, RCGM 3/2, rectification 1/2, together 6.25.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.flow.losses import robust, squared_error, time_weight
from twinflow_core.flow.path import interpolate, one_step_sample
from twinflow_core.flow.targets import (
    CLAMP,
    guided_target,
    rcgm_error,
    rcgm_integral,
    rcgm_start,
    shifted_target,
    velocity_difference,
)
from twinflow_core.params import FinetuneParams
from twinflow_core.training.roles import RoleCounts
from twinflow_core.training.twinflow_draws import StepDraws

# (x_t, t, r, conditioning) -> velocity; r is None for a network that has no target time
Network = Callable[[Tensor, Tensor, Tensor | None, Conditioning], Tensor]


@dataclass(frozen=True)
class Networks:
    """The networks of a step.

    Attributes:
        online: the weights in training.
        averaged: their exponential moving average, which gives targets without gradient.
        base: the frozen base model where `real_velocity` is `base`, else None.
    """

    online: Network
    averaged: Network
    base: Network | None


@dataclass(frozen=True)
class Batch:
    """Latents [B, C, H, W], the conditioning of their captions, and that of the empty caption (one row)."""

    x: Tensor
    conditioning: Conditioning
    empty: Conditioning


@dataclass(frozen=True)
class StepLoss:
    """The loss with its gradient, and what is worth plotting (plain numbers)."""

    loss: Tensor
    metrics: dict[str, float]


def twinflow_loss(
    networks: Networks, batch: Batch, draws: StepDraws, counts: RoleCounts, options: FinetuneParams
) -> StepLoss:
    """L = L_rcgm + adversarial_weight L_adv + rectify_weight L_rectify.

    Args:
        networks: see `Networks`; only `online` receives a gradient.
        batch: rows laid out as `counts`; the x of one_step and fake rows is not used.
        draws: this step's randomness.
        counts: rows by role.
        options: order, delta, guidance, weights.

    Returns:
        The mean loss over the batch; rectification is a mean over its own rows.
    """
    real = slice(0, counts.total - counts.fake)
    x = _with_fakes(networks.online, batch, draws, counts)
    x_t = interpolate(x, draws.z, draws.t)
    v = draws.z - x
    prediction = networks.online(x_t, draws.t, draws.r, batch.conditioning)
    with torch.no_grad():
        v_star = _guided(networks, batch, x_t, v, draws, counts, options)
        error = _rcgm(networks, batch, x_t, v_star, prediction.detach(), draws, real, options)
        target = torch.cat([shifted_target(prediction[real], error), v[real.stop :]])
    row_loss = robust(squared_error(prediction, target)) * _row_weight(draws, real, options)
    loss = row_loss.mean()
    metrics = _by_role(row_loss.detach(), counts)
    metrics["rcgm_clamped"] = float((error.abs() >= CLAMP).float().mean()) if error.numel() else 0.0
    if counts.one_step and options.rectify_weight > 0:
        rectified, rectify_metrics = _rectification(networks, batch, draws, counts, prediction, options)
        loss = loss + options.rectify_weight * rectified
        metrics |= rectify_metrics
    return StepLoss(loss, metrics | {"loss": float(loss.detach())})


@torch.no_grad()
def _with_fakes(online: Network, batch: Batch, draws: StepDraws, counts: RoleCounts) -> Tensor:
    """The batch's x with the fake rows replaced by one-step samples (a new tensor; eq. 2)."""
    if counts.fake == 0:
        return batch.x
    rows = slice(counts.total - counts.fake, counts.total)
    conditioning = batch.conditioning[rows]
    fakes = one_step_sample(lambda x_t, t, r: online(x_t, t, r, conditioning), draws.fake_z)
    return torch.cat([batch.x[: rows.start], fakes])


def _guided(
    networks: Networks,
    batch: Batch,
    x_t: Tensor,
    v: Tensor,
    draws: StepDraws,
    counts: RoleCounts,
    options: FinetuneParams,
) -> Tensor:
    """v* for every row: guided where 0 < t < 1, plain z - x elsewhere."""
    rows = slice(counts.one_step, counts.total - counts.fake)
    if options.guidance == 0 or rows.stop == rows.start:
        return v
    conditional, unconditional = _both_conditions(networks, batch, x_t[rows], draws.t[rows], rows)
    instant = conditional if networks.base is not None else v[rows]
    guided = guided_target(instant, conditional, unconditional, options.guidance)
    return torch.cat([v[: rows.start], guided, v[rows.stop :]])


def _both_conditions(
    networks: Networks, batch: Batch, x_t: Tensor, t: Tensor, rows: slice
) -> tuple[Tensor, Tensor]:
    """F(x_t, t, t; c) and F(x_t, t, t; empty) in one call of the base or of the averaged network."""
    network = networks.base or networks.averaged
    conditioning = Conditioning.cat([batch.conditioning[rows], batch.empty.repeat(len(t))])
    twice = t.repeat(2)
    both = network(x_t.repeat(2, 1, 1, 1), twice, None if networks.base else twice, conditioning)
    conditional, unconditional = both.chunk(2)
    return conditional, unconditional


def _rcgm(
    networks: Networks,
    batch: Batch,
    x_t: Tensor,
    v_star: Tensor,
    prediction: Tensor,
    draws: StepDraws,
    real: slice,
    options: FinetuneParams,
) -> Tensor:
    """The error of eq. 1 for the rows of the positive branch."""
    t, r, v, conditioning = draws.t[real], draws.r[real], v_star[real], batch.conditioning[real]
    if len(t) == 0:
        return v
    x_1, t_1 = rcgm_start(x_t[real], t, r, v, options.delta)
    integral = rcgm_integral(
        lambda x_i, t_i, r_i: networks.averaged(x_i, t_i, r_i, conditioning), x_1, t_1, r, options.order
    )
    return rcgm_error(prediction[real], integral, v, t, r, options.delta)


def _rectification(
    networks: Networks,
    batch: Batch,
    draws: StepDraws,
    counts: RoleCounts,
    prediction: Tensor,
    options: FinetuneParams,
) -> tuple[Tensor, dict[str, float]]:
    """L_rectify = d(F(z, 1, 0), sg[F(z, 1, 0) + Delta_v]) on re-noised one-step samples (eq. 7 and 9)."""
    rows = slice(0, counts.one_step)
    f = prediction[rows]
    conditioning = batch.conditioning[rows]
    t = draws.rectify_t
    with torch.no_grad():
        x_t = interpolate(draws.z[rows] - f, draws.rectify_z, t)
        if networks.base is None:
            both = networks.online(
                x_t.repeat(2, 1, 1, 1),
                torch.cat([t, -t]),
                torch.cat([t, -t]),
                Conditioning.cat([conditioning, conditioning]),
            )
            v_real, v_fake = both.chunk(2)
        else:
            v_fake = networks.online(x_t, -t, -t, conditioning)
            conditional, unconditional = _both_conditions(networks, batch, x_t, t, rows)
            v_real = guided_target(conditional, conditional, unconditional, options.guidance)
        difference = velocity_difference(v_real, v_fake)
    loss = robust(squared_error(f, f.detach() + difference)).mean()
    return loss, {
        "rectify": float(loss.detach()),
        "velocity_difference": float(difference.square().mean().sqrt()),
        "rectify_clamped": float((difference.abs() >= CLAMP).float().mean()),
    }


def _row_weight(draws: StepDraws, real: slice, options: FinetuneParams) -> Tensor:
    weight = time_weight(draws.t, draws.r)
    fake = torch.full_like(weight[real.stop :], options.adversarial_weight)
    return torch.cat([weight[real], fake])


def _by_role(row_loss: Tensor, counts: RoleCounts) -> dict[str, float]:
    parts = row_loss.split([counts.one_step, counts.near, counts.any, counts.fake])
    names = ("loss_one_step", "loss_near", "loss_any", "loss_fake")
    return {
        name: float(part.mean()) if len(part) else float("nan")
        for name, part in zip(names, parts, strict=True)
    }
