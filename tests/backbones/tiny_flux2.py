"""Real FLUX.2 pipelines, shrunk to random weights of a megabyte, for tests: klein with Qwen3, dev with Mistral 3.

Both read three layers out of the middle of their language models, so these keep their depth and are thin.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
)
from torch import Tensor
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralVisionConfig,
    Qwen3ForCausalLM,
)

from tests.backbones.tiny_text import chat_tokenizer, qwen3_config
from tests.backbones.tiny_vae import CHANNELS, flux2_vae

MAX_TOKENS = 24
KLEIN_LAYERS, DEV_LAYERS = 28, 31
# Tracing takes a minute at that depth: `reading_shallow` lets the pipelines read language models of three layers.
SHALLOW, SHALLOW_READ = 3, (0, 1, 2)
TEXT_WIDTH = 16


@contextmanager
def reading_shallow() -> Iterator[None]:
    """Let both pipelines read SHALLOW_READ where nothing else is asked for: states of models SHALLOW layers deep."""
    with pytest.MonkeyPatch.context() as patch:
        for pipeline in (Flux2Pipeline, Flux2KleinPipeline):
            *others, _ = pipeline.encode_prompt.__defaults__
            patch.setattr(pipeline.encode_prompt, "__defaults__", (*others, SHALLOW_READ))
        yield


def build_tiny_flux2_klein(
    folder: Path, seed: int = 0, is_distilled: bool = False, layers: int = KLEIN_LAYERS
) -> Path:
    """Klein: 32 x 32 images, latents [16, 4, 4], 24 tokens; the undistilled base takes guidance."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = chat_tokenizer(MAX_TOKENS)
        pipeline = Flux2KleinPipeline(
            text_encoder=Qwen3ForCausalLM(qwen3_config(tokenizer, layers)).eval(),
            tokenizer=tokenizer,
            is_distilled=is_distilled,
            **_common(guidance_embeds=False),
        )
    pipeline.save_pretrained(folder)
    return folder


def build_tiny_flux2_dev(folder: Path, seed: int = 0, layers: int = DEV_LAYERS) -> Path:
    """Dev, with a bare tokenizer: its processor, which text does not use, would need torchvision."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = chat_tokenizer(MAX_TOKENS)
        text = MistralConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=24,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=1024,
        )
        vision = PixtralVisionConfig(
            hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=28
        )
        encoder = Mistral3ForConditionalGeneration(
            Mistral3Config(vision_config=vision, text_config=text)
        ).eval()
        pipeline = Flux2Pipeline(text_encoder=encoder, tokenizer=tokenizer, **_common(guidance_embeds=True))
    pipeline.save_pretrained(folder)
    return folder


def call_klein(
    pipeline: Any, prompts: list[str], noise: Tensor, guidance: float, schedule: dict[str, Any]
) -> Tensor:
    """Latents of the pipeline's own call, whitened again."""
    height, width = (2 * side * pipeline.vae_scale_factor for side in noise.shape[2:])
    arguments = {"output_type": "latent", "height": height, "width": width} | schedule
    made = pipeline(
        prompt=prompts, latents=noise, guidance_scale=guidance, max_sequence_length=MAX_TOKENS, **arguments
    ).images
    if arguments["output_type"] != "latent":
        return made
    statistics = pipeline.vae.bn
    deviation = torch.sqrt(statistics.running_var + statistics.eps)
    patches = torch.nn.functional.pixel_unshuffle(made, 2)
    return (patches - statistics.running_mean.view(1, -1, 1, 1)) / deviation.view(1, -1, 1, 1)


def _common(guidance_embeds: bool) -> dict[str, Any]:
    transformer = Flux2Transformer2DModel(
        in_channels=4 * CHANNELS,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * TEXT_WIDTH,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 4, 4, 4),
    )
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return {"transformer": transformer.eval(), "scheduler": scheduler, "vae": flux2_vae()}
