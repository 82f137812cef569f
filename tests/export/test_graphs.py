"""What is traced computes exactly what evaluation computes, before any runtime comes in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.export.graphs import GivenTimeTransformer, TimeEmbedding
from twinflow_core.sampling.few_step import few_step_times, sample_few_steps

PROMPTS = ["a red circle", "", "three yellow squares"]


@pytest.fixture(scope="module")
def backbone(tiny_pipeline: Path) -> Backbone:
    return load_backbone(tiny_pipeline)


def unfolded(backbone: Backbone, noises: Tensor, conditioning: Conditioning) -> Tensor:
    return sample_few_steps(lambda x_t, t, r: backbone.velocity(x_t, t, r, conditioning), noises)


def folded(backbone: Backbone, noises: Tensor, conditioning: Conditioning) -> Tensor:
    transformer = backbone.pipeline.transformer
    network = GivenTimeTransformer(transformer)
    constants = iter(TimeEmbedding(transformer.time_text_embed).at(few_step_times(len(noises))))

    def velocity(x_t: Tensor, t: Tensor, r: Tensor) -> Tensor:
        return network(x_t, next(constants), conditioning.prompt_embeds, conditioning.pooled)

    return sample_few_steps(velocity, noises)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_folded_time_is_bit_exact(backbone: Backbone, steps: int) -> None:
    conditioning = backbone.encode_prompts(PROMPTS[:1])
    noises = torch.randn(steps, 1, *backbone.latent_shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(folded(backbone, noises, conditioning), unfolded(backbone, noises, conditioning))


def test_one_embedding_of_time_serves_a_whole_batch(backbone: Backbone) -> None:
    conditioning = backbone.encode_prompts(PROMPTS)
    noises = torch.randn(2, 3, *backbone.latent_shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        folded(backbone, noises, conditioning), unfolded(backbone, noises, conditioning), atol=1e-5, rtol=0
    )


def test_the_loaded_pipeline_is_left_as_it_is(backbone: Backbone) -> None:
    before = backbone.pipeline.transformer.time_text_embed
    GivenTimeTransformer(backbone.pipeline.transformer)
    assert backbone.pipeline.transformer.time_text_embed is before
