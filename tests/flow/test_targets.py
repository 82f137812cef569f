"""Targets against the closed form of Gaussian data, whose flow map is known exactly, and at their edges."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.flow.gaussian import Gaussian, rows
from twinflow_core.flow.distribution_matching import distribution_matching_target
from twinflow_core.flow.path import interpolate
from twinflow_core.flow.targets import (
    guided_target,
    normalised_difference,
    rcgm_error,
    rcgm_integral,
    rcgm_start,
    rcgm_target,
    shifted_target,
    velocity_difference,
)

DATA = Gaussian(0.0, 0.6)
shapes = st.tuples(st.integers(1, 3), *[st.integers(1, 2)] * 3)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@given(shapes, st.integers(1, 6), st.floats(0.01, 1), st.floats(0, 1))
@settings(deadline=None)
def test_the_jumps_of_the_exact_map_add_up_to_the_exact_displacement(
    shape: tuple[int, ...], order: int, start: float, share: float
) -> None:
    t_1, r = rows(*[start] * shape[0]), rows(*[start * share] * shape[0])
    x_1 = noise(*shape)
    displacement = x_1 - DATA.carry(x_1, t_1, r)
    assert torch.allclose(rcgm_integral(DATA.flow_map, x_1, t_1, r, order), displacement, atol=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_error_of_the_exact_map_vanishes_with_delta(order: int) -> None:
    t, r = rows(1.0, 0.8, 0.6), rows(0.0, 0.3, 0.05)
    x_t = noise(3, 1, 2, 2)
    prediction, v = DATA.flow_map(x_t, t, r), DATA.velocity(x_t, t)

    def error(delta: float) -> float:
        target, error = rcgm_target(DATA.flow_map, prediction, x_t, t, r, v, order, delta)
        assert torch.allclose(prediction - target, error, atol=1e-12)
        return float(error.abs().max())

    assert error(0.001) < 0.005
    assert error(0.001) < 0.2 * error(0.01)


def test_a_wrong_map_has_a_target_that_pulls_it_back() -> None:
    t, r, x_t = rows(1.0), rows(0.0), noise(1, 1, 2, 2)
    too_much = DATA.flow_map(x_t, t, r) + 0.002
    target, _ = rcgm_target(DATA.flow_map, too_much, x_t, t, r, DATA.velocity(x_t, t), 2, 0.01)
    assert (target < too_much).all()


@given(st.floats(0.001, 1), st.floats(0, 1))
@settings(max_examples=50)
def test_short_gaps_are_flow_matching_and_nothing_is_ever_infinite(t: float, share: float) -> None:
    times, targets = rows(t), rows(t * share)
    x_t, v = noise(1, 1, 2, 2), noise(1, 1, 2, 2) + 1
    x_1, t_1 = rcgm_start(x_t, times, targets, v, 0.01)
    prediction = torch.full_like(x_t, 0.3)
    integral = rcgm_integral(DATA.flow_map, x_1, t_1, targets, 2)
    error = rcgm_error(prediction, integral, v, times, targets, 0.01)
    assert torch.isfinite(error).all()
    if t - t * share <= 0.01:
        assert torch.allclose(error, prediction - v, atol=1e-9)


def test_equal_times_are_exactly_flow_matching() -> None:
    t, x_t, v = rows(0.4), noise(1, 1, 2, 2), noise(1, 1, 2, 2)
    prediction = torch.zeros_like(x_t)
    assert torch.equal(rcgm_error(prediction, torch.zeros_like(x_t), v, t, t, 0.01), -v)


def test_guidance_of_strength_zero_changes_nothing() -> None:
    v, c, u = noise(2, 1, 2, 2), noise(2, 1, 2, 2) + 1, noise(2, 1, 2, 2) - 1
    assert torch.equal(guided_target(v, c, u, 0.0), v)
    assert torch.allclose(guided_target(c, c, u, 0.8), u + 1.8 * (c - u))


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_targets_move_at_most_the_clamp(prediction: float, error: float) -> None:
    f, e = torch.full((1, 1, 1, 1), prediction), torch.full((1, 1, 1, 1), error)
    assert (shifted_target(f, e) - f).abs().max() <= 1 + 1e-6
    assert velocity_difference(f, e).abs().max() <= 1


def test_the_normalised_difference_is_the_move_of_distribution_matching() -> None:
    x, z, t = noise(3, 1, 2, 2), noise(3, 1, 2, 2).flip(0), rows(0.2, 0.5, 0.9)
    x_t = interpolate(x, z, t)
    v_real, v_fake = 0.3 * x_t + 0.1, -0.2 * x_t
    moved = distribution_matching_target(x, x_t, t, v_real, v_fake)
    difference = normalised_difference(v_real, v_fake, v_real - (z - x))
    # F = z - x, so that F moves against x.
    assert torch.allclose(-difference, moved - x)
    assert torch.isfinite(normalised_difference(v_real, v_fake, torch.zeros_like(x))).all()


def test_an_order_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="order"):
        rcgm_integral(DATA.flow_map, noise(1, 1, 2, 2), rows(1.0), rows(0.0), 0)
