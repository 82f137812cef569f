"""MeanFlow against the closed form of Gaussian data."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.flow.gaussian import Gaussian, over_nodes, rows, states
from twinflow_core.flow.meanflow import backward_difference, forward_mode, meanflow_target

DATA = Gaussian(0.3, 0.6)
T, R = rows(1.0, 0.8, 0.6, 0.5), rows(0.0, 0.3, 0.05, 0.4)


def test_the_exact_map_is_its_own_target() -> None:
    x_t = states(4)
    v = DATA.velocity(x_t, T)
    prediction, derivative = forward_mode(DATA.flow_map, x_t, T, R, v)
    assert torch.allclose(prediction, DATA.flow_map(x_t, T, R), atol=1e-12)
    assert torch.allclose(meanflow_target(v, derivative, T, R), prediction, atol=1e-9)


def test_the_target_has_no_pull_on_average_at_the_optimum_and_the_right_one_off_it() -> None:
    x_t = states(4)
    exact = DATA.flow_map(x_t, T, R)

    def target(v: torch.Tensor) -> torch.Tensor:
        return meanflow_target(v, forward_mode(DATA.flow_map, x_t, T, R, v)[1], T, R)

    assert torch.allclose(over_nodes(target, DATA.conditional_velocities(x_t, T)), exact, atol=1e-8)
    assert (exact + 0.1 - over_nodes(target, DATA.conditional_velocities(x_t, T)) > 0).all()


def test_the_finite_difference_converges_to_forward_mode() -> None:
    x_t = states(4)
    v = DATA.velocity(x_t, T)
    prediction, exact = forward_mode(DATA.flow_map, x_t, T, R, v)

    def off(step: float) -> float:
        found = backward_difference(DATA.flow_map, prediction, x_t, T, R, v, step)
        return float((found - exact).abs().max())

    assert off(1e-4) < 1e-3
    assert off(1e-4) < 0.15 * off(1e-3)


@given(st.floats(1e-3, 1), st.floats(0, 1))
@settings(deadline=None)
def test_every_time_is_finite_and_equal_times_are_flow_matching(t: float, share: float) -> None:
    times, targets, x_t = rows(t), rows(t * share), states(1)
    v = DATA.conditional_velocities(x_t, times)[3]
    derivative = backward_difference(
        DATA.flow_map, DATA.flow_map(x_t, times, targets), x_t, times, targets, v, 0.005
    )
    assert torch.isfinite(derivative).all()
    assert torch.equal(meanflow_target(v, derivative, times, times), v)
