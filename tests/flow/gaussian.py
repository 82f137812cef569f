"""Gaussian data, for which the velocity, the flow map and the score of the linear path are known exactly.

For x ~ N(m, s^2) the marginal at t is N((1 - t) m, sigma_t^2) with sigma_t^2 = t^2 + (1 - t)^2 s^2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NODES, WEIGHTS = (torch.from_numpy(values) for values in np.polynomial.hermite_e.hermegauss(24))
WEIGHTS = WEIGHTS / WEIGHTS.sum()


@dataclass(frozen=True)
class Gaussian:
    """Data N(mean, deviation^2), element by element; states are [B, 1, 1, 1], times [B], all float64."""

    mean: float
    deviation: float

    def sigma(self, t: Tensor) -> Tensor:
        """Deviation of the marginal at t."""
        return torch.sqrt(t.square() + (1 - t).square() * self.deviation**2)

    def velocity(self, x_t: Tensor, t: Tensor) -> Tensor:
        """E[z - x | x_t]."""
        slope = column((t - (1 - t) * self.deviation**2) / self.sigma(t).square())
        return slope * (x_t - column(1 - t) * self.mean) - self.mean

    def score(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Gradient of the log-density of the marginal at t."""
        return -(x_t - column(1 - t) * self.mean) / column(self.sigma(t).square())

    def carry(self, x_t: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """Where the flow carries x_t from t to r."""
        scale = column(self.sigma(r) / self.sigma(t))
        return column(1 - r) * self.mean + scale * (x_t - column(1 - t) * self.mean)

    def flow_map(self, x_t: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """F(x_t, t, r) = (x_t - x_r) / (t - r), the velocity at r = t."""
        gap = column(t - r)
        jumped = (x_t - self.carry(x_t, t, r)) / torch.where(gap == 0, torch.ones_like(gap), gap)
        return torch.where(gap == 0, self.velocity(x_t, t), jumped)

    def conditional_velocities(self, x_t: Tensor, t: Tensor) -> Tensor:
        """z - x at the quadrature nodes of x given x_t, [24, B, 1, 1, 1]."""
        precision = (1 - t).square() / t.square() + 1 / self.deviation**2
        centre = (column((1 - t) / t.square()) * x_t + self.mean / self.deviation**2) / column(precision)
        x = centre + NODES.view(-1, 1, 1, 1, 1) / column(precision.sqrt())
        return (x_t - x) / column(t)


def column(t: Tensor) -> Tensor:
    """[B] as [B, 1, 1, 1]."""
    return t.view(-1, 1, 1, 1)


def expectation(values: Tensor) -> Tensor:
    """The mean over the quadrature nodes in the first dimension: exact for polynomials up to degree 47."""
    return torch.tensordot(WEIGHTS, values, dims=1)


def over_nodes(function: Callable[[Tensor], Tensor], draws: Tensor) -> Tensor:
    """Expectation of a function of one of the draws, given at the nodes."""
    return expectation(torch.stack([function(draw) for draw in draws]))


def rows(*values: float) -> Tensor:
    """Times of a batch."""
    return torch.tensor(values, dtype=torch.float64)


def states(count: int) -> Tensor:
    """Some x_t."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn((count, 1, 1, 1), generator=generator, dtype=torch.float64)
