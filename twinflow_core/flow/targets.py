"""Regression targets of the TwinFlow objective. Nothing here draws, and nothing here needs a gradient.

Every function takes the draws it needs. Latents are [B, C, H, W], times [B], all of one floating type.
Equations are those of arXiv 2512.05150 v2; what the paper leaves to the authors' code is marked as such.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from twinflow_core.flow.path import Velocity, expand, interpolate, jump

CLAMP = 1.0
RESIDUAL_FLOOR = 0.05


def flow_matching_target(x: Tensor, z: Tensor) -> Tensor:
    """v = dx_t/dt = z - x, what F(x_t, t, t) learns the mean of (eq. 1 at N = 0).

    Args:
        x: data.
        z: its noise, N(0, I).
    """
    return z - x


def adversarial_target(x_fake: Tensor, z: Tensor) -> Tensor:
    """z - x_fake, what F(x_t', -t', -t') learns the mean of (eq. 2): flow matching on the model's own images.

    Args:
        x_fake: `path.one_step_sample` of noise of its own, without a gradient.
        z: fresh noise, N(0, I); x_t' = t' z + (1 - t') x_fake at t' in (0, 1]. With the noise that x_fake came
            from, the mean would not be the velocity that eq. 5 turns into a score.
    """
    return flow_matching_target(x_fake, z)


def guided_target(v: Tensor, conditional: Tensor, unconditional: Tensor, strength: float) -> Tensor:
    """v* = (z - x) + w [F(x_t, t, t; c) - F(x_t, t, t; empty)]: guidance trained in (UCGM's enhanced target).

    Sampling such a model without guidance equals sampling its base at guidance scale 1 + w.
    """
    return v + strength * (conditional - unconditional)


def teacher_target(conditional: Tensor, unconditional: Tensor, strength: float) -> Tensor:
    """c + w (c - u): v* where a frozen base says where the path goes, its velocity at guidance scale 1 + w.

    In data-free training x_t lies between noise and the model's own image, so that no data enters (the authors'
    image-free mode, whose u + w (c - u) is this at w - 1). It is also the v_real of eq. 7 where a base gives it.

    Args:
        conditional: the base's velocity at (x_t, t) under the caption.
        unconditional: the same under the empty caption.
        strength: w >= 0.
    """
    return guided_target(conditional, conditional, unconditional, strength)


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance u + g (c - u); scale 1 is the conditional velocity."""
    return unconditional + scale * (conditional - unconditional)


def rcgm_integral(velocity: Velocity, x_1: Tensor, t_1: Tensor, r: Tensor, order: int) -> Tensor:
    """I = sum_i F(x_{t_i}, t_i, t_{i+1}) (t_i - t_{i+1}) over `order` equal jumps from t_1 to r (eq. 1).

    Args:
        velocity: F of the averaged (or online) weights.
        x_1: the state at t_1.
        t_1: where the jumps start, r <= t_1.
        r: where they end, in [0, t_1].
        order: N >= 1.

    Raises:
        ValueError: order below 1.
    """
    if order < 1:
        raise ValueError(f"the order of RCGM must be at least 1, not {order}")
    integral = torch.zeros_like(x_1)
    x_i, t_i = x_1, t_1
    for i in range(1, order + 1):
        t_next = t_1 + (r - t_1) * (i / order)
        f = velocity(x_i, t_i, t_next)
        integral = integral + expand(t_i - t_next, x_1) * f
        x_i, t_i = jump(x_i, t_i, t_next, f), t_next
    return integral


def rcgm_start(x_t: Tensor, t: Tensor, r: Tensor, v: Tensor, delta: float) -> tuple[Tensor, Tensor]:
    """The state a small step along the path: t_1 = max(t - delta, r), x_1 = x_t - (t - t_1) v*."""
    t_1 = torch.maximum(t - delta, r)
    return jump(x_t, t, t_1, v), t_1


def rcgm_error(prediction: Tensor, integral: Tensor, v: Tensor, t: Tensor, r: Tensor, delta: float) -> Tensor:
    """How far F(x_t, t, r) is from the recursive consistency of eq. 1.

        err = [(t - r) F - I - (t - t_1) v*] / (t - t_1)

    with t_1 as in `rcgm_start`, so that for t - r <= delta the integral is empty and err = F - v*, which is
    flow matching. At r = t, where t - t_1 = 0, that limit is taken exactly: nothing divides by zero.
    """
    gap = t - r
    step = gap.clamp(max=delta)
    scale = torch.where(gap > delta, gap / step.clamp(min=torch.finfo(t.dtype).tiny), torch.ones_like(gap))
    inverse = torch.where(gap > delta, 1 / step.clamp(min=torch.finfo(t.dtype).tiny), torch.zeros_like(gap))
    return expand(scale, v) * prediction - expand(inverse, v) * integral - v


def shifted_target(prediction: Tensor, error: Tensor, clamp: float = CLAMP) -> Tensor:
    """sg(F) - clamp(err, -c, c): a target at most c away from the prediction in every element."""
    return prediction.detach() - error.clamp(-clamp, clamp)


@torch.no_grad()
def rcgm_target(
    velocity: Velocity,
    prediction: Tensor,
    x_t: Tensor,
    t: Tensor,
    r: Tensor,
    v: Tensor,
    order: int,
    delta: float,
) -> tuple[Tensor, Tensor]:
    """The target of recursive consistency of any order (eq. 1), and its error before the clamp.

    Args:
        velocity: F of the averaged (or online) weights.
        prediction: F(x_t, t, r) of the online weights.
        x_t: the states.
        t: their times, in (0, 1].
        r: the target times, in [0, t].
        v: v* there: z - x, guided or the teacher's.
        order: N >= 1.
        delta: the small step along the path, in (0, 1).

    Raises:
        ValueError: order below 1.
    """
    x_1, t_1 = rcgm_start(x_t, t, r, v, delta)
    integral = rcgm_integral(velocity, x_1, t_1, r, order)
    error = rcgm_error(prediction, integral, v, t, r, delta)
    return shifted_target(prediction, error), error


def velocity_difference(v_real: Tensor, v_fake: Tensor, clamp: float = CLAMP) -> Tensor:
    """Delta_v = v_real(x_t, t) - v_fake(x_t, -t) (eq. 7), clamped per element as the authors' code does."""
    return (v_real - v_fake).clamp(-clamp, clamp)


def normalised_difference(v_real: Tensor, v_fake: Tensor, residual: Tensor) -> Tensor:
    """Delta_v over the mean of |residual| in each row.

    With the residual v_real - (z - x) of the real velocity at a re-noised sample x, this is DMD's weight (arXiv
    2311.18828, eq. 8) written for velocities: a row counts for less where the real velocity itself is far off.
    """
    scale = residual.abs().flatten(1).mean(dim=1).clamp(min=RESIDUAL_FLOOR)
    return (v_real - v_fake) / expand(scale, v_real)


class Rectification(NamedTuple):
    """Where F(z, 1, 0) should go, and Delta_v before any clamp; both [B, C, H, W]."""

    target: Tensor
    difference: Tensor


def renoised_image(prediction: Tensor, z: Tensor, fresh_z: Tensor, t: Tensor) -> Tensor:
    """x_t' = t' z' + (1 - t') x of the one-step image x = z - F(z, 1, 0): where eq. 7 compares both velocities.

    Args:
        prediction: F(z, 1, 0), without a gradient.
        z: the noise that it is asked at.
        fresh_z: z' ~ N(0, I), independent of z.
        t: t' in (0, 1).
    """
    return interpolate(z - prediction, fresh_z, t)


@torch.no_grad()
def rectification_target(
    prediction: Tensor,
    z: Tensor,
    fresh_z: Tensor,
    v_real: Tensor,
    v_fake: Tensor,
    kind: Literal["clamped", "normalised"],
) -> Rectification:
    """sg[F(z, 1, 0) + Delta_v(x_t')] (eq. 9).

    Args:
        prediction: F(z, 1, 0).
        z: the noise that it is asked at.
        fresh_z: z' of `renoised_image`.
        v_real: the real velocity at x_t'.
        v_fake: the velocity of the model's own images there (eq. 7).
        kind: Delta_v clamped per element (`velocity_difference`), or over DMD's weight (`normalised_difference`).
    """
    if kind == "clamped":
        move = velocity_difference(v_real, v_fake)
    else:
        move = normalised_difference(v_real, v_fake, v_real - flow_matching_target(z - prediction, fresh_z))
    return Rectification(prediction + move, v_real - v_fake)
