"""The rows that start from the model's own one-step images (eq. 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.flow.path import one_step_sample
from twinflow_core.training.roles import RoleCounts
from twinflow_core.training.step import Batch, Network
from twinflow_core.training.twinflow_draws import StepDraws


@torch.no_grad()
def with_fakes(online: Network, batch: Batch, draws: StepDraws, unread: int = 0) -> Batch:
    """The batch with its last rows' x replaced by one-step samples of `draws.fake_z`.

    These are the fake rows, and the rows of all roles where the run is data-free.

    Args:
        online: the weights in training.
        batch: its last rows are those of `draws.fake_z`.
        draws: this step's randomness.
        unread: how many of the batch's first rows need no x, so that none is made for them.
    """
    rows = slice(max(len(batch.x) - len(draws.fake_z), unread), len(batch.x))
    if rows.start == rows.stop:
        return batch
    conditioning = batch.conditioning[rows]
    z = draws.fake_z[len(draws.fake_z) - (rows.stop - rows.start) :]
    fakes = one_step_sample(lambda x_t, t, r: online(x_t, t, r, conditioning), z)
    return Batch(torch.cat([batch.x[: rows.start], fakes]), batch.conditioning, batch.empty)


def with_shared_fakes(
    online: Network, batch: Batch, draws: StepDraws, counts: RoleCounts
) -> tuple[Batch, Tensor]:
    """The batch with this step's own one-step samples as fakes, under their prompts, and their prediction.

    Nothing is evaluated twice: F(z, 1, 0) of the one_step rows, [one_step, C, H, W], is what the loss of those
    rows needs anyway, with its gradient. A fake's fresh noise is its own, so its path is independent of them.

    Args:
        online: the weights in training.
        batch: rows laid out as `counts`, at least one of them one_step.
        draws: this step's randomness; `fake_z` is not used.
        counts: rows by role.
    """
    rows = slice(0, counts.one_step)
    conditioning = batch.conditioning[rows]
    prediction = online(draws.z[rows], draws.t[rows], draws.r[rows], conditioning)
    source = torch.arange(counts.fake, device=batch.x.device) % counts.one_step
    fakes = (draws.z[rows] - prediction.detach())[source]
    real = counts.total - counts.fake
    prompts = Conditioning.cat([batch.conditioning[:real], conditioning[source]])
    return Batch(torch.cat([batch.x[:real], fakes]), prompts, batch.empty), prediction
