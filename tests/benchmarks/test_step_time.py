"""What the timing of a step compares: equal numbers where it says so, each way at its own count."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.objectives import same_numbers
from benchmarks.objectives.naive_step import AT_ITS_COUNT
from benchmarks.objectives.same_numbers import OtherNumbersError, difference_to_plain, relative_difference
from benchmarks.objectives.step_time import BUNDLED, measure
from tests.training.test_objectives import options
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.training.draws import normal
from twinflow_core.training.roles import role_counts
from twinflow_core.training.step import Batch, MicroBatch, Networks, StepLoss
from twinflow_core.training.twinflow_draws import draw_step
from twinflow_core.training.twinflow_objective import twinflow_loss


def test_every_way_runs_at_its_count_and_says_whether_it_computes_the_same(tiny_pipeline: Path) -> None:
    found = measure(tiny_pipeline, 16, 1, False, "float32")
    costs = {name: way["equivalents_a_row"] for name, way in found["ways"].items()}
    # Of params.yaml's 16 rows 9 are one_step, 1 any and 6 fake: gradient 3, rectification 3, target 4, fakes 1.
    assert costs == {
        "plain": 7.75,
        "ours": 6.25,
        "near rows as flow matching": 5.75,
        "and shared fakes": 5.5,
        BUNDLED: round((16 * 3 + 9 * 3 + 1 * 4 + 6 * 1) / 16, 3),
    }
    assert [name for name, way in found["ways"].items() if way["same_numbers_as_plain"]] == ["plain", "ours"]
    assert all(way["milliseconds"] > 0 for way in found["ways"].values())
    assert found["difference_in_float64"] < 1e-10


def test_ways_that_compute_other_numbers_are_not_timed(
    tiny_pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(tiny_pipeline)
    chosen = options(**AT_ITS_COUNT)
    counts = role_counts(chosen.shares, 0, 4)
    conditioning = backbone.encode_prompts(["a red circle"] * 4)
    batch = Batch(normal(0, 0, "x", (4, *backbone.latent_shape)), conditioning, conditioning[:1])
    draws = draw_step(0, 0, counts, backbone.latent_shape)

    def other(networks: Networks, rows: MicroBatch, options: FinetuneParams) -> StepLoss:
        return twinflow_loss(networks, rows, options.model_copy(update={"rectify_target": "normalised"}))

    monkeypatch.setattr(same_numbers, "twinflow_loss", other)
    with pytest.raises(OtherNumbersError, match="differ by"):
        difference_to_plain(backbone.velocity, batch, draws, counts, chosen)


def test_a_difference_of_gradients_alone_counts() -> None:
    loss, gradient = torch.tensor(2.0), torch.tensor([3.0, 4.0])
    assert relative_difference((loss, gradient), (loss, gradient)) == 0
    assert relative_difference(
        (loss, gradient), (loss, gradient + torch.tensor([0.5, 0.0]))
    ) == pytest.approx(0.1)
    assert relative_difference((loss, gradient), (loss + 1, gradient)) == 0.5
