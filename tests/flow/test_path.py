"""The linear path and its jumps against closed forms."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from twinflow_core.flow.path import interpolate, jump, one_step_sample, predict_data

SHAPE = (3, 2, 4, 4)


def latents(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.floats(-1, 1))
def test_the_true_velocity_recovers_the_data_on_both_branches(time: float) -> None:
    x, z = latents(0), latents(1)
    t = torch.full((3,), time, dtype=torch.float64)
    assert torch.allclose(predict_data(interpolate(x, z, t), t, z - x), x, atol=1e-12)


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_jump_along_the_true_velocity_stays_on_the_path(t: float, r: float) -> None:
    x, z = latents(0), latents(1)
    start, end = torch.full((3,), t, dtype=torch.float64), torch.full((3,), r, dtype=torch.float64)
    there = jump(interpolate(x, z, start), start, end, z - x)
    assert torch.allclose(there, interpolate(x, z, end), atol=1e-12)


def test_one_step_asks_the_network_for_the_whole_jump() -> None:
    asked: list[tuple[float, float]] = []

    def velocity(x_t: torch.Tensor, t: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        asked.append((float(t[0]), float(r[0])))
        return 0.25 * x_t

    z = latents(2)
    assert torch.equal(one_step_sample(velocity, z), z - 0.25 * z)
    assert asked == [(1.0, 0.0)]
