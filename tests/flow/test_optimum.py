"""What the targets of TwinFlow are for Gaussian data; the losses made of them: tests/training/test_optimum.py."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.flow.gaussian import Gaussian, over_nodes, rows, states
from twinflow_core.flow.targets import rcgm_error, rcgm_integral, rcgm_start, velocity_difference

DATA = Gaussian(0.3, 0.6)
NO_CLAMP = float("inf")


def rcgm_pull(order: int, delta: float, wrong_by: float = 0.0) -> Tensor:
    """E[err | x_t] of eq. 1 where all jumps are exact but the one in question, off by `wrong_by`."""
    t, r, x_t = rows(1.0, 0.8, 0.6, 0.5), rows(0.0, 0.3, 0.05, 0.5), states(4)
    prediction = DATA.flow_map(x_t, t, r) + wrong_by

    def error(v: Tensor) -> Tensor:
        x_1, t_1 = rcgm_start(x_t, t, r, v, delta)
        integral = rcgm_integral(DATA.flow_map, x_1, t_1, r, order)
        return rcgm_error(prediction, integral, v, t, r, delta)

    return over_nodes(error, DATA.conditional_velocities(x_t, t))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_recursive_consistency(order: int) -> None:
    assert float(rcgm_pull(order, 1e-5).abs().max()) < 1e-4
    assert float(rcgm_pull(order, 1e-3).abs().max()) < 0.15 * float(rcgm_pull(order, 1e-2).abs().max())
    assert (rcgm_pull(order, 1e-3, wrong_by=0.01) > 0).all()
    assert (rcgm_pull(order, 1e-3, wrong_by=-0.01) < 0).all()


def test_many_jumps_along_the_velocity_alone_converge_to_the_flow_map() -> None:
    t, r, x = rows(1.0, 0.7), rows(0.0, 0.2), states(2)
    exact = x - DATA.carry(x, t, r)

    def off(order: int) -> float:
        integral = rcgm_integral(lambda x_i, t_i, _: DATA.velocity(x_i, t_i), x, t, r, order)
        return float((integral - exact).abs().max())

    errors = [off(order) for order in (8, 16, 32, 64, 512)]
    assert all(later < 0.6 * earlier for earlier, later in pairwise(errors))
    assert errors[-1] < 3e-3


@given(st.floats(0.05, 0.95), st.floats(-1, 1), st.floats(0.2, 2))
@settings(deadline=None)
def test_the_velocity_difference_is_the_difference_of_the_scores(
    t: float, mean: float, deviation: float
) -> None:
    fakes, at, x_t = Gaussian(mean, deviation), rows(t, t), states(2)
    difference = velocity_difference(DATA.velocity(x_t, at), fakes.velocity(x_t, at), NO_CLAMP)
    scores = DATA.score(x_t, at) - fakes.score(x_t, at)
    assert torch.allclose(difference, -t / (1 - t) * scores, atol=1e-8)
