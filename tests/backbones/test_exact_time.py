"""Exact time: nothing changes in float32, and a difference quotient in bfloat16 is right with it alone."""

import copy

import pytest
import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

from twinflow_core.backbones.exact_time import ExactTime
from twinflow_core.backbones.target_time import TargetTime

DELTA = 0.01
TIMES = torch.linspace(0.55, 0.95, 41)


class CastingTime(nn.Module):
    """How Qwen-Image and FLUX embed time: cast to the layers' type, then sinusoids; then once more by guidance."""

    def __init__(self) -> None:
        super().__init__()
        self.time_proj = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0, scale=1000)
        self.exact = ExactTime(self.time_proj)

    def forward(self, t: Tensor, dtype: torch.dtype, exact: bool) -> tuple[Tensor, Tensor]:
        self.exact.time = t if exact else None
        return self.time_proj(t.to(dtype)), self.time_proj((0 * t + 3).to(dtype))


def quotient(time: CastingTime, dtype: torch.dtype, exact: bool) -> Tensor:
    """(E(t) - E(t - delta)) / delta of a smooth embedding: the slow half of the sinusoids."""
    now, before = (time(t, dtype, exact)[0] for t in (TIMES, TIMES - DELTA))
    return ((now - before) / DELTA)[:, 64:128]


def test_in_float32_it_changes_no_bit() -> None:
    time = CastingTime()
    assert torch.equal(time(TIMES, torch.float32, True)[0], time(TIMES, torch.float32, False)[0])


def test_a_difference_quotient_in_bfloat16_is_right_with_it_alone() -> None:
    time = CastingTime()
    right = quotient(time, torch.float32, False)

    def error(exact: bool) -> float:
        return float((quotient(time, torch.bfloat16, exact) - right).norm() / right.norm())

    assert error(exact=True) == 0
    assert error(exact=False) > 0.15


def test_it_is_used_up_by_one_call() -> None:
    time = CastingTime()
    _, guidance = time(TIMES, torch.bfloat16, True)
    assert torch.equal(guidance, time.time_proj(torch.full_like(TIMES, 3.0)))
    assert time.exact.time is None


def test_a_copy_has_a_hook_of_its_own() -> None:
    time = CastingTime()
    twin = copy.deepcopy(time)
    twin.exact.time = TIMES
    before = time.time_proj(0 * TIMES)
    assert torch.equal(time.time_proj(0 * TIMES), before)
    assert torch.equal(twin.time_proj(0 * TIMES), time.time_proj(TIMES))


@pytest.mark.parametrize("bias", [True, False])
def test_an_embedding_without_bias_can_host_target_time(bias: bool) -> None:
    host = TimestepEmbedding(256, 16, sample_proj_bias=bias)
    before = host(torch.ones(2, 256))
    target = TargetTime(host)
    target.r = torch.tensor([0.3, 1.0])
    assert torch.equal(host(torch.ones(2, 256)), before)
