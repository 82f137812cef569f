"""Both samplers against closed forms and against diffusers' own scheduler."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.sampling.few_step import few_step_times, sample_few_steps
from twinflow_core.sampling.many_step import sample_many_steps

SHAPE = (2, 1, 4, 4)


def noise(steps: int) -> Tensor:
    return torch.randn((steps, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def conditioning(rows: int, value: float) -> Conditioning:
    return Conditioning(torch.zeros(rows, 1, 1), torch.full((rows, 1), value, dtype=torch.float64))


def test_times() -> None:
    assert few_step_times(1) == [1.0]
    assert few_step_times(2) == [1.0, 0.5]
    assert few_step_times(4) == [1.0, 0.75, 0.5, 0.25]
    with pytest.raises(ValueError, match="at least one step"):
        few_step_times(0)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_network_that_knows_the_data_samples_it(steps: int) -> None:
    x = torch.full(SHAPE, 0.3, dtype=torch.float64)

    def velocity(x_t: Tensor, t: Tensor, r: Tensor) -> Tensor:
        assert (r == 0).all()
        return (x_t - x) / t.view(-1, 1, 1, 1)

    assert torch.allclose(sample_few_steps(velocity, noise(steps)), x, atol=1e-12)


def test_two_steps_equal_diffusers_stochastic_sampling() -> None:
    def velocity(x_t: Tensor, t: Tensor, r: Tensor) -> Tensor:
        return 0.7 * x_t + t.view(-1, 1, 1, 1)

    noises = torch.stack(
        [noise(1)[0].float(), torch.randn(SHAPE, generator=torch.Generator().manual_seed(5))]
    )
    scheduler = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    scheduler.set_timesteps(sigmas=[1.0, 0.5])
    generator = torch.Generator().manual_seed(5)
    x_t = noises[0]
    for timestep in scheduler.timesteps:
        t = torch.full((2,), float(timestep) / 1000)
        x_t = scheduler.step(velocity(x_t, t, 0 * t), timestep, x_t, generator=generator).prev_sample
    assert torch.allclose(sample_few_steps(velocity, noises), x_t, atol=1e-5)


def test_many_steps_follow_a_straight_line_exactly_and_guidance_extrapolates() -> None:
    start = noise(1)[0]

    def velocity(x_t: Tensor, t: Tensor, prompts: Conditioning) -> Tensor:
        return prompts.pooled.view(-1, 1, 1, 1).expand_as(x_t)

    def ends(guidance: float) -> Tensor:
        scheduler = FlowMatchEulerDiscreteScheduler(shift=2.0)
        scheduler.set_timesteps(7)
        prompts, empty = conditioning(2, 1.0), conditioning(1, 0.25)
        return sample_many_steps(velocity, start, prompts, empty, scheduler, guidance)

    assert torch.allclose(ends(1.0), start - 1.0, atol=1e-5)
    assert torch.allclose(ends(3.0), start - (0.25 + 3.0 * 0.75), atol=1e-5)
