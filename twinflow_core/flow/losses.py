"""How a prediction's distance to its target becomes a loss, per row and weighted in time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROBUST_SCALE = 1e-3


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each row, [B]."""
    return (prediction - target).square().flatten(1).mean(dim=1)


def robust(mse: Tensor, c: float = ROBUST_SCALE) -> Tensor:
    """Barron's loss at alpha = 1 with a detached weight: mse / sqrt(mse / c^2 + 1) / c, near the RMSE.

    As the weight is held fixed, the gradient is twice that of the row's RMSE, and a hard row weighs no more than an
    easy one. The authors' code adds 1e-8 to c^2, which makes both 0.5 % larger away from zero.

    Args:
        mse: [B], non-negative.
        c: where the loss turns from quadratic to linear.
    """
    weight = (mse.detach() / (c * c) + 1).rsqrt()
    return mse * weight / c


def time_weight(t: Tensor, r: Tensor) -> Tensor:
    """tan((1 - (|t| - |r|)) pi / 2.5) + 1: 1 for the full jump, about 4.08 at r = t (the authors' code)."""
    return torch.tan((1 - (t.abs() - r.abs())) * (math.pi / 2.5)) + 1
