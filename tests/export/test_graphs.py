"""What is traced draws exactly what evaluation draws, before any runtime comes in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.backbones.sd3 import Sd3Backbone
from twinflow_core.export.graphs import FewStepGenerator, TextEncoders
from twinflow_core.sampling.few_step import sample_few_steps

PROMPTS = ["a red circle", "", "three yellow squares"]


@pytest.fixture(scope="module")
def backbone(tiny_pipeline: Path) -> Sd3Backbone:
    return load_backbone(tiny_pipeline)


def sampled(backbone: Sd3Backbone, noises: Tensor, conditioning: Conditioning) -> Tensor:
    latents = sample_few_steps(lambda x_t, t, r: backbone.velocity(x_t, t, r, conditioning), noises)
    return backbone.decode_latents(latents)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_folded_time_is_bit_exact(backbone: Sd3Backbone, steps: int) -> None:
    conditioning = backbone.encode_prompts(PROMPTS[:1])
    noises = torch.randn(steps, 1, *backbone.latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        images = FewStepGenerator(backbone, steps)(noises, conditioning.prompt_embeds, conditioning.pooled)
    assert torch.equal(images, sampled(backbone, noises, conditioning))


def test_a_batch_equals_its_rows(backbone: Sd3Backbone) -> None:
    conditioning = backbone.encode_prompts(PROMPTS)
    noises = torch.randn(2, 3, *backbone.latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        images = FewStepGenerator(backbone, 2)(noises, conditioning.prompt_embeds, conditioning.pooled)
    torch.testing.assert_close(images, sampled(backbone, noises, conditioning), atol=1e-5, rtol=0)


def test_the_loaded_pipeline_is_left_as_it_is(backbone: Sd3Backbone) -> None:
    before = backbone.pipeline.transformer.time_text_embed
    FewStepGenerator(backbone, 1)
    assert backbone.pipeline.transformer.time_text_embed is before


def test_text_encoders_equal_encode_prompt(backbone: Sd3Backbone) -> None:
    pipeline = backbone.pipeline
    expected = backbone.encode_prompts(PROMPTS)
    ids = [
        tokenizer(
            PROMPTS,
            padding="max_length",
            max_length=pipeline.tokenizer_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2)
    ]
    with torch.no_grad():
        embeds, pooled = TextEncoders(backbone, expected.prompt_embeds.shape[1])(*ids)
    assert torch.equal(embeds, expected.prompt_embeds)
    assert torch.equal(pooled, expected.pooled)
