"""The random numbers of one TwinFlow step, drawn before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from twinflow_core.training.draws import normal, uniform
from twinflow_core.training.roles import RoleCounts

NEAR_GAP = 0.05


@dataclass(frozen=True)
class StepDraws:
    """Draws of a batch laid out as one_step, near, any, fake (B rows in all).

    Attributes:
        z: [B, C, H, W], the noise of each row; of a fake row, the fresh noise its fake is mixed with.
        t: [B] in [-1, 1]: 1 for one_step, negative for fake.
        r: [B]: 0 for one_step, close below t for near, uniform in [0, t] for any, t for fake.
        fake_z: [fake, C, H, W], the noise the fakes are generated from; [B, C, H, W] where all rows are.
        rectify_z: [one_step, C, H, W], the noise that rectification mixes the one-step samples with.
        rectify_t: [one_step] in (0, 1).
    """

    z: Tensor
    t: Tensor
    r: Tensor
    fake_z: Tensor
    rectify_z: Tensor
    rectify_t: Tensor

    def to(self, device: torch.device) -> StepDraws:
        """The same on another device."""
        return StepDraws(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def of_rows(self, rows: Tensor) -> StepDraws:
        """The draws of some of the rows.

        Args:
            rows: int64 [b], positions in the batch, roles in their order.
        """
        unmade = len(self.z) - len(self.fake_z)
        one_step = rows[rows < len(self.rectify_z)]
        return StepDraws(
            z=self.z[rows],
            t=self.t[rows],
            r=self.r[rows],
            fake_z=self.fake_z[rows[rows >= unmade] - unmade],
            rectify_z=self.rectify_z[one_step],
            rectify_t=self.rectify_t[one_step],
        )


def at_equal_times(draws: StepDraws, rows: slice) -> StepDraws:
    """The same draws with r = t in these rows."""
    r = draws.r.clone()
    r[rows] = draws.t[rows]
    return replace(draws, r=r)


def draw_step(
    seed: int,
    step: int,
    counts: RoleCounts,
    shape: tuple[int, ...],
    data_free: bool = False,
    rectify_t_power: float = 1.0,
) -> StepDraws:
    """All draws of a step.

    Args:
        seed: the run's seed.
        step: 0-based.
        counts: rows by role.
        shape: (C, H, W) of the latents.
        data_free: whether the rows of every role start from one-step samples.
        rectify_t_power: p in (0, 2] of t' = u^p with uniform u. The paper has 1. The gradient of KL(p_fake || p_real)
            has the weight (1 - t')^2 / t', which eq. 9 leaves out; p > 1 gives some of it back: the density
            t'^(1/p - 1) / p has more where little noise is left.
    """
    u = uniform(seed, step, "t", counts.total)
    gap = uniform(seed, step, "r", counts.total)
    # Keeps |t| off zero, where a velocity difference says nothing and 1/t would not be finite.
    u = u.clamp(min=1e-3)
    near, any_, fake = u[counts.one_step :].split([counts.near, counts.any, counts.fake])
    near_gap, any_gap, _ = gap[counts.one_step :].split([counts.near, counts.any, counts.fake])
    ones = torch.ones(counts.one_step)
    return StepDraws(
        z=normal(seed, step, "z", (counts.total, *shape)),
        t=torch.cat([ones, near, any_, -fake]),
        r=torch.cat([ones * 0, near * (1 - NEAR_GAP * near_gap), any_ * (1 - any_gap), -fake]),
        fake_z=normal(seed, step, "fake z", (counts.total if data_free else counts.fake, *shape)),
        rectify_z=normal(seed, step, "rectify z", (counts.one_step, *shape)),
        rectify_t=uniform(seed, step, "rectify t", counts.one_step).pow(rectify_t_power).clamp(min=1e-3),
    )
