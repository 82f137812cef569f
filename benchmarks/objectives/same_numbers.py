"""Whether two ways to compute a step give the same loss and gradient, in float64 on networks that are in use."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.objectives.naive_step import naive_loss
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.velocity import Velocity
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.training.roles import RoleCounts
from twinflow_core.training.step import Batch, MicroBatch, Networks
from twinflow_core.training.twinflow_draws import StepDraws
from twinflow_core.training.twinflow_objective import twinflow_loss

ROUNDING = 1e-10
# Weights of a base are moved by so much: an untrained target time would hide what is asked at a wrong r.
MOVED = 0.02


class OtherNumbersError(Exception):
    """Two ways that should compute the same do not, so that comparing their times says nothing."""


def difference_to_plain(
    online: Velocity, batch: Batch, draws: StepDraws, counts: RoleCounts, options: FinetuneParams
) -> float:
    """How far our loss and gradient are from the plain step's, relative to their size; at most 1e-10.

    Args:
        online: a network, which is copied.
        batch: rows laid out as `counts`.
        draws: the step's randomness.
        counts: rows by role.
        options: what the plain step computes.

    Raises:
        OtherNumbersError: they are further apart.
    """
    moved, averaged = _moved(online, 1).requires_grad_(True), _moved(online, 2)
    networks = Networks(moved, averaged, None)
    rows = MicroBatch(_long(batch), _long_draws(draws), counts, counts)
    plain = naive_loss(networks, rows.batch, rows.draws, counts, options)
    ours = twinflow_loss(networks, rows, options).loss
    found = [_loss_and_gradient(loss, moved) for loss in (plain, ours)]
    difference = relative_difference(*found)
    if not difference <= ROUNDING:
        raise OtherNumbersError(
            f"the plain step and ours differ by {difference:.1e} of their loss or gradient"
        )
    return difference


def relative_difference(plain: tuple[Tensor, Tensor], ours: tuple[Tensor, Tensor]) -> float:
    """The larger of two: how far the losses of two ways are apart, and their gradients, over the plain way's norm."""
    return max(float((a - b).norm() / a.norm()) for a, b in zip(plain, ours, strict=True))


def _loss_and_gradient(loss: Tensor, network: Velocity) -> tuple[Tensor, Tensor]:
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    network.zero_grad(set_to_none=True)
    return loss.detach(), gradient


def _moved(network: Velocity, seed: int) -> Velocity:
    twin = network.independent_copy().double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in twin.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data += MOVED * noise.to(parameter.device)
    return twin


def _long(batch: Batch) -> Batch:
    def longer(conditioning: Conditioning) -> Conditioning:
        return conditioning.in_type(torch.float64)

    return Batch(batch.x.double(), longer(batch.conditioning), longer(batch.empty))


def _long_draws(draws: StepDraws) -> StepDraws:
    return StepDraws(**{name: value.double() for name, value in vars(draws).items()})
