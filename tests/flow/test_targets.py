"""Targets against the closed form of Gaussian data, whose flow map is known exactly.

For x ~ N(0, s^2) the marginal at t has deviation sigma_t = sqrt(t^2 + (1 - t)^2 s^2), its velocity is
v(x, t) = x sigma_t' / sigma_t, and the flow carries x_t to x_r = x_t sigma_r / sigma_t.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from twinflow_core.flow.distribution_matching import distribution_matching_target
from twinflow_core.flow.path import expand, interpolate
from twinflow_core.flow.targets import (
    guided_target,
    normalised_difference,
    rcgm_error,
    rcgm_integral,
    rcgm_start,
    shifted_target,
    velocity_difference,
)

DEVIATION = 0.6


def sigma(t: Tensor) -> Tensor:
    return torch.sqrt(t.square() + (1 - t).square() * DEVIATION**2)


def marginal_velocity(x_t: Tensor, t: Tensor) -> Tensor:
    slope = (t - (1 - t) * DEVIATION**2) / sigma(t)
    return x_t * expand(slope / sigma(t), x_t)


def exact_map(x_t: Tensor, t: Tensor, r: Tensor) -> Tensor:
    """F(x_t, t, r) = (x_t - x_r) / (t - r), and the velocity itself at r = t."""
    gap = t - r
    mean = x_t * expand((1 - sigma(r) / sigma(t)) / gap.clamp(min=1e-30), x_t)
    return torch.where(expand(gap, x_t) > 0, mean, marginal_velocity(x_t, t))


def rows(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def noise(count: int) -> Tensor:
    return torch.randn((count, 1, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_jumps_of_the_exact_map_add_up_to_the_exact_displacement(order: int) -> None:
    t_1, r = rows(0.9, 0.5, 0.7), rows(0.0, 0.2, 0.7)
    x_1 = noise(3)
    displacement = x_1 - x_1 * expand(sigma(r) / sigma(t_1), x_1)
    assert torch.allclose(rcgm_integral(exact_map, x_1, t_1, r, order), displacement, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_error_of_the_exact_map_vanishes_with_delta(order: int) -> None:
    t, r = rows(1.0, 0.8, 0.6), rows(0.0, 0.3, 0.05)
    x_t = noise(3)

    def error(delta: float) -> float:
        v = marginal_velocity(x_t, t)
        x_1, t_1 = rcgm_start(x_t, t, r, v, delta)
        integral = rcgm_integral(exact_map, x_1, t_1, r, order)
        return float(rcgm_error(exact_map(x_t, t, r), integral, v, t, r, delta).abs().max())

    assert error(0.001) < 0.005
    assert error(0.001) < 0.2 * error(0.01)


def test_a_wrong_map_has_an_error_that_pulls_it_back() -> None:
    t, r, x_t = rows(1.0), rows(0.0), noise(1)
    v = marginal_velocity(x_t, t)
    x_1, t_1 = rcgm_start(x_t, t, r, v, 0.01)
    too_much = exact_map(x_t, t, r) + 0.002
    error = rcgm_error(too_much, rcgm_integral(exact_map, x_1, t_1, r, 2), v, t, r, 0.01)
    assert (shifted_target(too_much, error) < too_much).all()


@given(st.floats(0.001, 1), st.floats(0, 1))
@settings(max_examples=50)
def test_short_gaps_are_flow_matching_and_nothing_is_ever_infinite(t: float, share: float) -> None:
    times, targets = rows(t), rows(t * share)
    x_t, v = noise(1), noise(1) + 1
    x_1, t_1 = rcgm_start(x_t, times, targets, v, 0.01)
    prediction = torch.full_like(x_t, 0.3)
    integral = rcgm_integral(exact_map, x_1, t_1, targets, 2)
    error = rcgm_error(prediction, integral, v, times, targets, 0.01)
    assert torch.isfinite(error).all()
    if t - t * share <= 0.01:
        assert torch.allclose(error, prediction - v, atol=1e-9)


def test_equal_times_are_exactly_flow_matching() -> None:
    t, x_t, v = rows(0.4), noise(1), noise(1)
    prediction = torch.zeros_like(x_t)
    assert torch.equal(rcgm_error(prediction, torch.zeros_like(x_t), v, t, t, 0.01), -v)


def test_guidance_of_strength_zero_changes_nothing() -> None:
    v, c, u = noise(2), noise(2) + 1, noise(2) - 1
    assert torch.equal(guided_target(v, c, u, 0.0), v)
    assert torch.allclose(guided_target(c, c, u, 0.8), u + 1.8 * (c - u))


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_targets_move_at_most_the_clamp(prediction: float, error: float) -> None:
    f, e = torch.full((1, 1, 1, 1), prediction), torch.full((1, 1, 1, 1), error)
    assert (shifted_target(f, e) - f).abs().max() <= 1 + 1e-6
    assert velocity_difference(f, e).abs().max() <= 1


def test_the_normalised_difference_is_the_move_of_distribution_matching() -> None:
    x, z, t = noise(3), noise(3).flip(0), rows(0.2, 0.5, 0.9)
    x_t = interpolate(x, z, t)
    v_real, v_fake = 0.3 * x_t + 0.1, -0.2 * x_t
    moved = distribution_matching_target(x, x_t, t, v_real, v_fake)
    difference = normalised_difference(v_real, v_fake, v_real - (z - x))
    # F = z - x, so that F moves against x.
    assert torch.allclose(-difference, moved - x)
    assert torch.isfinite(normalised_difference(v_real, v_fake, torch.zeros_like(x))).all()


def test_an_order_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="order"):
        rcgm_integral(exact_map, noise(1), rows(1.0), rows(0.0), 0)
