"""What reaches AdamW in a step: the rate of that step, and gradients within their largest norm, network by network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.test_finite import OWN, options, training_of
from twinflow_core.training.optimizer import clip_gradients, trained
from twinflow_core.training.schedule import learning_rate_factor


def norm(network: nn.Module) -> float:
    gradients = [p.grad.flatten() for p in trained(network) if p.grad is not None]
    return float(torch.cat(gradients).norm())


def test_each_network_is_clipped_by_its_own_norm() -> None:
    large, small = nn.Linear(3, 2), nn.Linear(2, 2)
    for network, size in ((large, 5.0), (small, 0.1)):
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, size)
    before = norm(large), norm(small)
    norms = clip_gradients(large, small, 1.0)
    assert (norms.online, norms.fake_score) == pytest.approx(before)
    assert (norm(large), norm(small)) == pytest.approx((1.0, before[1]), rel=1e-5)
    assert norms.logged() == {"gradient_norm": norms.online, "fake_gradient_norm": norms.fake_score}
    assert clip_gradients(large, None, 1.0).logged().keys() == {"gradient_norm"}


def test_a_step_takes_its_own_rate_and_clipped_gradients(tiny_pipeline: Path, tmp_path: Path) -> None:
    schedule = {"steps": 4, "warmup_steps": 2, "decay_steps": 2, "clip_norm": 1e-3}
    own = {"weights": "full", "learning_rate_factor": 0.5}
    chosen = options(**{**OWN, "fake_score": own, "learning_rate": 1e-2, **schedule})
    training = training_of(tiny_pipeline, chosen, tmp_path)
    assert training.fake_score is not None
    networks = [training.online, training.fake_score]
    rates: list[list[float]] = []
    norms: list[list[float]] = []

    def look(optimizer: torch.optim.Optimizer, *given: Any) -> None:
        rates.append([group["lr"] for group in optimizer.param_groups])
        norms.append([norm(network) for network in networks])

    training.optimizer.register_step_pre_hook(look)
    training.run()
    expected = [1e-2 * learning_rate_factor(step, 4, 2, 2) for step in range(4)]
    assert len(set(expected)) > 1
    assert [both[0] for both in rates] == pytest.approx(expected)
    assert [both[1] for both in rates] == pytest.approx([rate / 2 for rate in expected])
    assert [row["learning_rate"] for row in training.log] == pytest.approx(expected)
    assert all(each == pytest.approx(1e-3, rel=1e-3) for both in norms for each in both)
    assert all(row["gradient_norm"] > 1e-3 and row["fake_gradient_norm"] > 1e-3 for row in training.log)
