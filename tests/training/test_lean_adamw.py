"""AdamW in little memory against torch's: the same path, kept state, exact resumption."""

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from twinflow_core.training.lean_adamw import LeanAdamW

BETAS = (0.9, 0.95)
TARGET = torch.randn(40, 128, generator=torch.Generator().manual_seed(1))


def make(eight_bit: bool, dtype: torch.dtype = torch.float32) -> tuple[list[nn.Parameter], LeanAdamW]:
    parameters = [nn.Parameter(torch.ones(40, 128, dtype=dtype)), nn.Parameter(torch.ones(128, dtype=dtype))]
    return parameters, LeanAdamW(parameters, 1e-3, BETAS, eight_bit, seed=3)


def loss(parameters: list[nn.Parameter], step: int) -> Tensor:
    """A bowl with noise in its gradient that depends on the step alone."""
    weight, bias = (parameter.float() for parameter in parameters)
    noise = torch.randn(40, 128, generator=torch.Generator().manual_seed(step))
    return (weight + bias - TARGET).square().mean() + 0.01 * (weight * noise).mean()


def value(parameters: list[nn.Parameter]) -> float:
    return float(loss(parameters, 0).detach())


def run(parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        loss(parameters, step).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_with_float32_state_it_is_torchs_adamw() -> None:
    parameters, optimizer = make(eight_bit=False)
    theirs = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    run(parameters, optimizer, range(30))
    run(theirs, torch.optim.AdamW(theirs, 1e-3, BETAS, weight_decay=0.0), range(30))
    for mine, other in zip(parameters, theirs, strict=True):
        assert torch.allclose(mine, other, atol=1e-6)


def test_eight_bits_follow_the_path_of_thirty_two() -> None:
    parameters, optimizer = make(eight_bit=True)
    theirs, plain = make(eight_bit=False)
    run(parameters, optimizer, range(100))
    run(theirs, plain, range(100))
    assert value(parameters) == pytest.approx(value(theirs), rel=0.01)
    moved = theirs[0].detach() - 1
    assert float((parameters[0] - theirs[0]).norm() / moved.norm()) < 0.05


def test_the_state_of_a_large_tensor_takes_two_bytes_a_value_in_place_of_eight() -> None:
    for eight_bit, allowed in ((True, 2 + 8 / 128), (False, 8.0)):
        parameters, optimizer = make(eight_bit)
        run(parameters, optimizer, range(1))
        state = optimizer.state[parameters[0]].values()
        held = sum(each.nbytes for each in state if each.dim())
        assert allowed * 0.98 < held / parameters[0].numel() <= allowed


def test_a_gradient_that_stops_does_not_blow_up_the_next_update() -> None:
    values = nn.Parameter(torch.zeros(16, 256))
    optimizer = LeanAdamW([values], 1e-3, (0.9, 0.999), eight_bit=True, seed=0)
    size = torch.logspace(-6, 0, 4096)[torch.randperm(4096, generator=torch.Generator().manual_seed(0))].view(
        16, 256
    )
    for step in range(30):
        before = values.detach().clone()
        values.grad = size * torch.randn(16, 256, generator=torch.Generator().manual_seed(step))
        if step > 20:
            values.grad.zero_()
        optimizer.step()
        assert float((values - before).abs().max()) < 10 * 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("eight_bit", [False, True])
def test_a_resumed_run_is_the_same_run_to_the_bit(dtype: torch.dtype, eight_bit: bool) -> None:
    whole, optimizer = make(eight_bit, dtype)
    run(whole, optimizer, range(12))
    killed, first = make(eight_bit, dtype)
    run(killed, first, range(5))
    saved = through_a_file({"weights": killed, "optimizer": first.state_dict()})
    resumed, second = make(eight_bit, dtype)
    with torch.no_grad():
        for parameter, kept in zip(resumed, saved["weights"], strict=True):
            parameter.copy_(kept)
    second.load_state_dict(saved["optimizer"])
    run(resumed, second, range(5, 12))
    for mine, other in zip(resumed, whole, strict=True):
        assert mine.dtype == dtype
        assert mine.equal(other)


def test_short_weights_learn_what_the_nearest_would_lose() -> None:
    short, optimizer = make(eight_bit=False, dtype=torch.bfloat16)
    # Far below half the distance of 1 to its neighbours.
    for group in optimizer.param_groups:
        group["lr"] = 1e-4
    before = value(short)
    run(short, optimizer, range(100))
    assert value(short) < before
    nearest = torch.ones(1, dtype=torch.bfloat16)
    assert (nearest.float() - 1e-4).to(torch.bfloat16).equal(nearest)


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded
