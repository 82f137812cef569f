"""Where a generated image should move so that its distribution nears the data's (VSD; DMD, arXiv 2311.18828)."""

from __future__ import annotations

import torch
from torch import Tensor

from twinflow_core.flow.path import predict_data


@torch.no_grad()
def distribution_matching_target(x: Tensor, x_t: Tensor, t: Tensor, v_real: Tensor, v_fake: Tensor) -> Tensor:
    """x moved by the difference of the two denoised images, over the real one's mean distance to x.

    With x0(v) = x_t - t v the move is (x0(v_real) - x0(v_fake)) / mean |x - x0(v_real)|, row by row.

    Args:
        x: generated latents, [B, C, H, W].
        x_t: the same, mixed with noise.
        t: times of the mixtures, [B], in (0, 1).
        v_real: velocity of the data there.
        v_fake: velocity of the generated images there.
    """
    real, fake = predict_data(x_t, t, v_real), predict_data(x_t, t, v_fake)
    distance = (x - real).abs().flatten(1).mean(dim=1).clamp(min=torch.finfo(x.dtype).eps)
    return x + (real - fake) / distance.view(-1, *[1] * (x.ndim - 1))
