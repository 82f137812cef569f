"""Lanes on a real, tiny SD3: the step's numbers, the same bits every time, and one lane where there cannot be more."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.test_loop import STEPS, data_of, folder, train, weights
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.finetune_params import FinetuneParams, MeanflowParams
from twinflow_core.training.lanes import lane_count
from twinflow_core.training.loop import Resume, Training
from twinflow_core.training.optimizer import trained
from twinflow_core.training.ranks import ALONE, Ranks

__all__ = ["folder"]
CPU = torch.device("cpu")
LARGE = STEPS.model_copy(update={"batch_size": 50, "steps": 3})
OWN: dict[str, Any] = {"fake_velocity": "own", "real_velocity": "base", "fake_score": {"weights": "full"}}


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def options_of(**changed: Any) -> FinetuneParams:
    return FinetuneParams.model_validate({**LARGE.model_dump(), **changed})


def step_of(folder: Path, options: FinetuneParams, threads: int) -> tuple[Training, list[torch.Tensor]]:
    """A training before its first step, and the gradient of that step."""
    torch.set_num_threads(threads)
    backbone = load_backbone(folder)
    training = Training(backbone.velocity, data_of(backbone), options, Resume(folder.parent / "none", "k"))
    training.lanes.backward(
        training.rows(0), lambda networks, part: training.objective.loss(networks, part, 0)
    )
    fake_score = training.fake_score
    parameters = trained(training.online) + (trained(fake_score) if fake_score else [])
    return training, [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        OWN,
        {"accumulation": 2, "batch_size": 100},
        {"objective": "rcgm"},
        {"gradient_checkpointing": True},
        {"lora_rank": 2},
        {"lora_rank": 2, "quantized_base": "int8"},
    ],
)
def test_lanes_give_the_gradient_of_one(changed: dict[str, Any], folder: Path) -> None:
    options = options_of(**changed)
    one, expected = step_of(folder, options, 1)
    three, gradient = step_of(folder, options, 3)
    assert (one.lanes.count, three.lanes.count) == (1, 3)
    assert torch.cat([each.flatten() for each in expected]).abs().max() > 0
    for mine, theirs in zip(gradient, expected, strict=True):
        scale = theirs.abs().max().clamp(min=1e-4)
        assert ((mine - theirs).abs().max() / scale) < 1e-3


def test_lanes_hold_no_weights_of_their_own(folder: Path) -> None:
    training, _ = step_of(folder, options_of(**OWN), 3)
    for name in ("online", "averaged", "base", "fake"):
        first, *others = [getattr(networks, name) for networks in training.lanes.networks]
        for other in others:
            assert other is not first
            assert all(a is b for a, b in zip(first.parameters(), other.parameters(), strict=True))
            assert other.target_time is not first.target_time


@pytest.mark.parametrize("changed", [{}, OWN])
def test_a_run_with_lanes_gives_the_same_bits_and_resumes_to_them(
    changed: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    options = options_of(**changed, checkpoint_every=2)
    whole = train(folder, options, tmp_path / "whole")
    assert whole.lanes.count == 3
    backbone = load_backbone(folder)
    killed = Training(backbone.velocity, data_of(backbone), options, Resume(tmp_path / "killed", "k"))
    for step in range(2):
        killed._step(step)
        killed.finished_steps = step + 1
    killed._save()
    assert torch.equal(weights(train(folder, options, tmp_path / "killed")), weights(whole))
    assert torch.equal(weights(train(folder, options, tmp_path / "again")), weights(whole))


@pytest.mark.parametrize(
    ("changed", "lanes"),
    [
        ({}, 3),
        ({"batch_size": 47}, 2),
        ({"batch_size": 31}, 1),
        ({"accumulation": 3}, 1),
        ({"compile": True}, 1),
        ({"fakes": "shared"}, 1),
        ({"objective": "meanflow"}, 3),
        ({"objective": "meanflow", "meanflow": MeanflowParams(derivative="forward_mode")}, 1),
    ],
)
def test_lanes_are_as_many_as_threads_where_the_rows_and_the_calls_allow(
    changed: dict[str, Any], lanes: int
) -> None:
    assert lane_count(options_of(**changed), CPU, ALONE) == lanes


def test_a_gpu_or_one_rank_of_many_has_one_lane() -> None:
    assert lane_count(LARGE, torch.device("cuda"), ALONE) == 1
    mesh: Any = object()
    assert lane_count(LARGE, CPU, Ranks(0, 2, mesh)) == 1


def test_what_a_lane_raises_is_raised(folder: Path) -> None:
    training, _ = step_of(folder, LARGE, 3)

    def broken(networks: object, part: object) -> Any:
        raise ValueError("no loss")

    with pytest.raises(ValueError, match="no loss"):
        training.lanes.backward(training.rows(0), broken)
