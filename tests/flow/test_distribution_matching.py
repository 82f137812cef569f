"""VSD's target against the closed form of Gaussian data."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.flow.gaussian import Gaussian, column, rows, states
from twinflow_core.flow.distribution_matching import distribution_matching_target
from twinflow_core.flow.path import interpolate

DATA = Gaussian(0.3, 0.6)


@given(st.floats(0.05, 0.95), st.floats(-1, 1), st.floats(0.2, 2))
@settings(deadline=None)
def test_it_moves_along_the_difference_of_the_scores(t: float, mean: float, deviation: float) -> None:
    fakes, at = Gaussian(mean, deviation), rows(t, t, t)
    x = states(3)
    x_t = interpolate(x, states(3).flip(0), at)
    v_real, v_fake = DATA.velocity(x_t, at), fakes.velocity(x_t, at)
    moved = distribution_matching_target(x, x_t, at, v_real, v_fake) - x
    scores = DATA.score(x_t, at) - fakes.score(x_t, at)
    denoised = x_t - column(at) * v_real
    assert torch.allclose(moved, t**2 / (1 - t) * scores / (x - denoised).abs(), atol=1e-8)


def test_equal_distributions_leave_the_image_where_it_is() -> None:
    at, x = rows(0.4, 0.7), states(2)
    v = DATA.velocity(x, at)
    assert torch.equal(distribution_matching_target(x, x, at, v, v), x)


def test_an_image_that_is_its_own_denoised_one_is_finite() -> None:
    at, x = rows(0.5), states(1)
    assert torch.isfinite(distribution_matching_target(x, x, at, torch.zeros_like(x), x)).all()
