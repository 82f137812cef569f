"""Guided velocities of the frozen base, or of the averaged network where there is no base."""

from __future__ import annotations

import torch
from torch import Tensor

from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.flow.targets import guided_target, teacher_target
from twinflow_core.training.step import Batch, Networks


@torch.no_grad()
def guided_velocity(
    networks: Networks, batch: Batch, x_t: Tensor, v: Tensor, t: Tensor, rows: slice, strength: float
) -> Tensor:
    """v* of these rows: with a base its guided velocity, else z - x plus the guidance of the average.

    Args:
        networks: whose `base`, else `averaged`, is asked.
        batch: gives the conditioning.
        x_t: the states of these rows.
        v: their z - x.
        t: their times, in (0, 1].
        rows: where in the batch they are.
        strength: w; at 0 nothing is evaluated and v comes back.
    """
    if strength == 0 or len(t) == 0:
        return v
    if networks.base is not None:
        return base_velocity(networks, batch, x_t, t, rows, strength)
    return guided_target(v, *_both_conditions(networks, batch, x_t, t, rows), strength)


@torch.no_grad()
def base_velocity(
    networks: Networks, batch: Batch, x_t: Tensor, t: Tensor, rows: slice, strength: float
) -> Tensor:
    """The frozen base's velocity of these rows at guidance scale 1 + w.

    Args:
        networks: whose `base` is asked.
        batch: gives the conditioning.
        x_t: the states of these rows.
        t: their times, in (0, 1].
        rows: where in the batch they are.
        strength: w; at 0 the empty caption is not asked.

    Raises:
        ValueError: there is no base.
    """
    if networks.base is None:
        raise ValueError("no frozen base gives the real velocity")
    if strength == 0:
        return networks.base(x_t, t, None, batch.conditioning[rows])
    return teacher_target(*_both_conditions(networks, batch, x_t, t, rows), strength)


def _both_conditions(
    networks: Networks, batch: Batch, x_t: Tensor, t: Tensor, rows: slice
) -> tuple[Tensor, Tensor]:
    """F(x_t, t, t; c) and F(x_t, t, t; empty) in one call of the base or of the averaged network.

    Args:
        networks: whose `base`, else `averaged`, is asked.
        batch: gives the conditioning.
        x_t: the states of these rows.
        t: their times.
        rows: where in the batch they are.
    """
    network = networks.averaged if networks.base is None else networks.base
    conditioning = Conditioning.cat([batch.conditioning[rows], batch.empty.repeat(len(t))])
    twice = t.repeat(2)
    both = network(x_t.repeat(2, 1, 1, 1), twice, twice if networks.base is None else None, conditioning)
    conditional, unconditional = both.chunk(2)
    return conditional, unconditional
