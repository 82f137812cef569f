"""With `keep_last` the averaged weights of the last checkpoints stay, as stock files, also if the run was killed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.test_best import make
from tests.training.test_loop import STEPS, train
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.errors import InfrastructureError
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.training.last import FOLDER
from twinflow_core.training.loop import Training

KEPT = STEPS.model_copy(update={"steps": 8, "checkpoint_every": 2, "keep_last": 2})


def kept_bytes(state: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((state / FOLDER).iterdir())}


@pytest.fixture(scope="module")
def whole(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    training = make(tiny_pipeline, KEPT, tmp_path_factory.mktemp("last") / "state")
    training.run()
    return training


def test_the_newest_stay_and_are_the_averages_of_their_steps(
    tiny_pipeline: Path, tmp_path: Path, whole: Training
) -> None:
    assert list(kept_bytes(whole.resume.folder)) == ["step_000006.safetensors", "step_000008.safetensors"]
    earlier = train(tiny_pipeline, KEPT.model_copy(update={"steps": 6, "keep_last": 0}), tmp_path)
    assert not (tmp_path / FOLDER).exists()
    for step, training in ((6, earlier), (8, whole)):
        kept = load_file(whole.resume.folder / FOLDER / f"step_{step:06d}.safetensors")
        averages = dict(training.averaged.named_parameters())
        assert kept.keys() == averages.keys()
        assert all(kept[name].equal(averages[name]) for name in kept)


def test_the_files_of_a_low_rank_run_are_an_adapter_for_the_stock_pipeline(
    tiny_pipeline: Path, tmp_path: Path
) -> None:
    low = KEPT.model_copy(update={"steps": 2, "lora_rank": 2, "learning_rate": 1e-2})
    training = make(tiny_pipeline, low, tmp_path)
    training.run()
    kept = load_file(tmp_path / FOLDER / "step_000002.safetensors")
    pipeline = load_backbone(tiny_pipeline).pipeline
    pipeline.load_lora_weights({name: kept[name] for name in kept if ".lora_" in name})
    pipeline.fuse_lora()
    backbone = load_backbone(tiny_pipeline)
    training.collect(backbone.velocity)
    layer = "transformer_blocks.0.attn.to_q"
    fused = pipeline.transformer.get_submodule(layer).weight
    low_rank = backbone.pipeline.transformer.get_submodule(layer)
    assert torch.allclose(fused, low_rank.weight + low_rank.get_delta_weight("default"), atol=1e-6)


@pytest.mark.parametrize("state_of", [4, 0])
def test_a_killed_run_leaves_the_same_files(
    tiny_pipeline: Path, tmp_path: Path, whole: Training, state_of: int
) -> None:
    state = shutil.copytree(whole.resume.folder, tmp_path / "state")
    # Files of later steps than the state goes on from, as a kill between the two leaves them.
    (state / "state.pt").unlink()
    if state_of:
        early = make(tiny_pipeline, options_until(state_of), state)
        early.run()
    resumed = make(tiny_pipeline, KEPT, state)
    resumed.run()
    assert kept_bytes(state) == kept_bytes(whole.resume.folder)


def options_until(steps: int) -> FinetuneParams:
    return KEPT.model_copy(update={"steps": steps})


def test_what_cannot_be_written_is_told(tiny_pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file where a folder should be")
    with pytest.raises(InfrastructureError, match="weights of a checkpoint"):
        make(tiny_pipeline, options_until(2), tmp_path).run()
