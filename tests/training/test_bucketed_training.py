"""Training on rows of two shapes: batches of one shape each, the same bits after a kill, a loss over both."""

from pathlib import Path

import pytest
import torch

from tests.training.test_loop import STEPS, data_of, weights
from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.encoding.joined import Joined
from twinflow_core.training.encoded import Bucket, EncodedData
from twinflow_core.training.loop import Resume, Training
from twinflow_core.training.ranks import ALONE
from twinflow_core.training.validation import validation_loss

WIDE, TALL = 8, 6


def bucketed_data_of(backbone: Backbone) -> EncodedData:
    """The rows of `data_of`, then others that are half as wide."""
    wide = data_of(backbone, WIDE)
    assert isinstance(wide.latents, torch.Tensor)
    tall = wide.latents[:TALL, :, :, :4].contiguous()
    buckets = (
        Bucket("32x32", range(WIDE), tuple(wide.latents.shape[1:])),
        Bucket("16x32", range(WIDE, WIDE + TALL), tuple(tall.shape[1:])),
    )
    latents = Joined([wide.latents, tall], torch.cat)
    return EncodedData(latents, torch.cat([wide.caption, wide.caption[:TALL]]), wide.conditioning, buckets)


def training_in(folder: Path, state: Path, steps: int) -> Training:
    backbone = load_backbone(folder)
    data = bucketed_data_of(backbone)
    options = STEPS.model_copy(update={"steps": steps, "validate_every": 6})
    return Training(backbone.velocity, data, options, Resume(state, "k"), validation=data)


def test_each_batch_has_one_shape_and_a_killed_run_resumes_to_the_same_bits(
    tiny_pipeline: Path, tmp_path: Path
) -> None:
    whole = training_in(tiny_pipeline, tmp_path / "whole", 6)
    shapes = [{tuple(rows.batch.x.shape[1:]) for rows in whole.rows(step)} for step in range(6)]
    assert all(len(each) == 1 for each in shapes)
    assert set.union(*shapes) == {(4, 8, 8), (4, 8, 4)}
    whole.run()
    training_in(tiny_pipeline, tmp_path / "killed", 4).run()
    resumed = training_in(tiny_pipeline, tmp_path / "killed", 6)
    resumed.run()
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.log == whole.log


def test_the_held_out_loss_is_that_of_each_bucket_by_its_rows(tiny_pipeline: Path, tmp_path: Path) -> None:
    training = training_in(tiny_pipeline, tmp_path, 6)
    data = bucketed_data_of(load_backbone(tiny_pipeline))

    def loss(held_out: EncodedData) -> float:
        cpu = torch.device("cpu")
        return validation_loss(training.objective, training.judged, held_out, training.options, cpu, ALONE)

    def alone(bucket: Bucket) -> EncodedData:
        rows = torch.tensor(list(bucket.rows))
        return EncodedData(data.latents[rows], data.caption[rows], data.conditioning)

    first, second = (loss(alone(bucket)) for bucket in data.buckets)
    assert loss(data) == pytest.approx((WIDE * first + TALL * second) / (WIDE + TALL))
