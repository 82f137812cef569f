"""The average against its closed form."""

import pytest
import torch
from torch import nn

from twinflow_core.training.ema import effective_decay, update_average


def test_a_constant_target_is_approached_geometrically() -> None:
    average, online = nn.Linear(2, 2), nn.Linear(2, 2)
    start = average.weight.detach().clone()
    for _ in range(5):
        update_average(average, online, 0.5)
    expected = online.weight + 0.5**5 * (start - online.weight)
    assert torch.allclose(average.weight, expected, atol=1e-6)


def test_early_updates_forget_the_start() -> None:
    decays = [effective_decay(0.99, n) for n in range(2000)]
    assert decays[0] == pytest.approx(0.1)
    assert decays == sorted(decays)
    assert decays[-1] == 0.99
    assert effective_decay(0.0, 100) == 0.0
