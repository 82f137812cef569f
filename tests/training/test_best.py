"""With `keep_best` a run ends with the weights of its lowest held-out loss, also if it was killed on its way."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.training.test_loop import STEPS, data_of, train, weights
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.errors import TwinflowError
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.training.best import FOLDER, best_step
from twinflow_core.training.loop import Training
from twinflow_core.training.resumption import Resume

# A rate at which the held-out loss soon rises again.
BEST = STEPS.model_copy(
    update={"steps": 8, "learning_rate": 0.03, "ema_decay": 0.0, "validate_every": 2, "keep_best": True}
)


def make(folder: Path, options: FinetuneParams, state: Path) -> Training:
    backbone = load_backbone(folder)
    data = data_of(backbone)
    return Training(backbone.velocity, data, options, Resume(state, "k"), validation=data)


@pytest.fixture(scope="module")
def whole(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    training = make(tiny_pipeline, BEST, tmp_path_factory.mktemp("best") / "state")
    training.run()
    return training


def test_the_weights_are_those_of_the_lowest_held_out_loss(
    tiny_pipeline: Path, tmp_path: Path, whole: Training
) -> None:
    step = best_step(whole.log)
    assert step is not None
    assert step < BEST.steps
    until = STEPS.model_copy(update={"steps": step, "learning_rate": 0.03, "ema_decay": 0.0})
    assert weights(whole).equal(weights(train(tiny_pipeline, until, tmp_path)))
    last = make(tiny_pipeline, BEST.model_copy(update={"keep_best": False}), tmp_path / "last")
    last.run()
    assert last.log == whole.log
    assert not weights(last).equal(weights(whole))
    assert not (tmp_path / "last" / FOLDER).exists()


@pytest.mark.parametrize("killed_after", ["the best", "the last step"])
def test_a_killed_run_ends_with_the_same_weights(
    tiny_pipeline: Path, tmp_path: Path, whole: Training, killed_after: str
) -> None:
    state = shutil.copytree(whole.resume.folder, tmp_path / "state")
    if killed_after == "the best":
        # Best weights of a later step than the state goes on from, as a kill between the two leaves them.
        early = make(tiny_pipeline, BEST.model_copy(update={"steps": 2, "keep_best": False}), state)
        (state / "state.pt").unlink()
        early.run()
    resumed = make(tiny_pipeline, BEST, state)
    resumed.run()
    assert resumed.log == whole.log
    assert weights(resumed).equal(weights(whole))


def test_lost_weights_are_told(tiny_pipeline: Path, tmp_path: Path, whole: Training) -> None:
    state = shutil.copytree(whole.resume.folder, tmp_path / "state")
    shutil.rmtree(state / FOLDER)
    with pytest.raises(TwinflowError, match="are gone"):
        make(tiny_pipeline, BEST, state).run()


def test_the_first_of_equals_is_the_best_and_what_is_not_finite_never() -> None:
    losses = [float("nan"), 3.0, 2.0, float("inf"), 2.0, 2.5]
    log = [{"step": float(step), "validation_loss": loss} for step, loss in enumerate(losses)]
    assert best_step([{"step": 9.0}, *log]) == 2
    assert best_step(log[:1]) is None


@pytest.mark.parametrize("never", [{"validate_every": 0}, {"validate_every": 3, "log_every": 4}])
def test_it_asks_for_a_loss_that_is_measured(never: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="none up to the last step"):
        FinetuneParams.model_validate(BEST.model_dump() | never)
    FinetuneParams.model_validate(BEST.model_dump() | never | {"keep_best": False})
