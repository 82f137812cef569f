"""What stops a training that is no longer finite: the step, the term or the gradient, and whose it is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.test_loop import STEPS, data_of
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.backbones.velocity import Velocity
from twinflow_core.errors import TwinflowError
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.training.loop import Resume, Training
from twinflow_core.training.signs import require_sign_sensitivity

# As in params.yaml: a second network, and no `near` row.
OWN: dict[str, Any] = {
    "fake_velocity": "own",
    "fake_score": {"weights": "full"},
    "real_velocity": "base",
    "one_step_target": "rectified",
    "shares": {"one_step": 1, "near": 0, "any": 1, "fake": 2},
}


def options(**changed: Any) -> FinetuneParams:
    return FinetuneParams.model_validate({**STEPS.model_dump(), **changed})


def training_of(folder: Path, chosen: FinetuneParams, state: Path) -> Training:
    backbone = load_backbone(folder)
    return Training(backbone.velocity, data_of(backbone), chosen, Resume(state, "k"))


def stop(training: Training) -> TwinflowError:
    with pytest.raises(TwinflowError) as stopped:
        training.run()
    return stopped.value


def spoil_gradient(network: Velocity | None, after: int) -> None:
    """The network's gradient is infinite from its `after`-th backward pass on, and its losses are as they were."""
    assert network is not None
    passes = 0

    def spoilt(gradient: torch.Tensor) -> torch.Tensor:
        nonlocal passes
        passes += 1
        return gradient * math.inf if passes > after else gradient

    next(p for p in network.parameters() if p.requires_grad).register_hook(spoilt)


@pytest.mark.parametrize("accumulation", [1, 4])
def test_terms_are_named_with_their_rows_and_none_that_has_no_row(
    accumulation: int, tiny_pipeline: Path, tmp_path: Path
) -> None:
    training = training_of(tiny_pipeline, options(**OWN, accumulation=accumulation), tmp_path)
    assert training.fake_score is not None
    for parameter in training.fake_score.parameters():
        parameter.data.fill_(math.nan)
    stopped = stop(training)
    assert "the loss is not finite at step 0" in stopped.what
    assert stopped.where == (
        "step 0: loss_fake of 2 rows is nan, rectify of 1 row is nan, velocity_difference of 1 row is nan, "
        "the gradient of the model is nan, the gradient of the second network is nan"
    )


def test_a_gradient_is_named_where_the_loss_is_finite(tiny_pipeline: Path, tmp_path: Path) -> None:
    training = training_of(tiny_pipeline, options(), tmp_path)
    spoil_gradient(training.online, after=2)
    stopped = stop(training)
    assert "a gradient is not finite at step 2" in stopped.what
    assert stopped.where.startswith("step 2: the gradient of the model is ")
    assert "loss" not in stopped.where


def test_the_second_network_is_told_from_the_model(tiny_pipeline: Path, tmp_path: Path) -> None:
    training = training_of(tiny_pipeline, options(**OWN), tmp_path)
    spoil_gradient(training.fake_score, after=1)
    stopped = stop(training)
    assert stopped.where.startswith("step 1: the gradient of the second network is ")
    assert "model" not in stopped.where
    assert len(training.log) == 1


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_a_velocity_that_says_nothing_of_signs_stops_before_the_first_step(
    value: float, tiny_pipeline: Path, tmp_path: Path
) -> None:
    training = training_of(tiny_pipeline, options(), tmp_path)
    for parameter in training.online.parameters():
        parameter.data.fill_(value)
    stopped = stop(training)
    assert "zero or not finite before training" in stopped.what
    assert stopped.where.endswith("[nan]")


def test_one_process_that_cannot_tell_signs_stops_all() -> None:
    with pytest.raises(TwinflowError, match="not finite"):
        require_sign_sensitivity([0.5, math.nan])
    with pytest.raises(TwinflowError, match="cannot tell time"):
        require_sign_sensitivity([0.5, 1e-9])
    require_sign_sensitivity([0.5, 0.4])
