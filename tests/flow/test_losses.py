"""The row loss and its weight in time against closed forms."""

import math

import pytest
import torch

from twinflow_core.flow.losses import robust, squared_error, time_weight


def test_the_robust_loss_is_the_rmse_away_from_zero() -> None:
    mse = torch.tensor([1e-2, 1.0, 9.0], dtype=torch.float64)
    assert torch.allclose(robust(mse), mse.sqrt(), rtol=1e-3)


def test_its_gradient_does_not_grow_with_the_error() -> None:
    target = torch.zeros(2, 1, 1, 1)
    prediction = torch.tensor([0.1, 10.0]).view(2, 1, 1, 1).requires_grad_()
    robust(squared_error(prediction, target)).sum().backward()
    near, far = prediction.grad.flatten().tolist()  # type: ignore[union-attr]
    assert near == pytest.approx(2.0, rel=1e-3)
    assert far == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize(
    ("t", "r", "weight"), [(1, 0, 1.0), (0.5, 0.5, 4.0777), (-0.3, -0.3, 4.0777), (1, 0.5, 1.7265)]
)
def test_the_time_weight(t: float, r: float, weight: float) -> None:
    value = float(time_weight(torch.tensor([float(t)]), torch.tensor([float(r)])))
    assert value == pytest.approx(weight, abs=1e-4)
    assert value == pytest.approx(math.tan((1 - (abs(t) - abs(r))) * math.pi / 2.5) + 1, abs=1e-5)
