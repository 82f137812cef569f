"""A real ZImagePipeline, shrunk to random weights of a megabyte, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from torch import Tensor
from transformers import Qwen3Model

from tests.backbones.tiny_text import chat_tokenizer, qwen3_config
from tests.backbones.tiny_vae import CHANNELS, flux_vae

MAX_TOKENS = 24


def build_tiny_z_image(folder: Path, seed: int = 0) -> Path:
    """Make the pipeline, save it in `folder` and return that: 32 x 32 images, latents [4, 8, 8], 24 tokens."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = chat_tokenizer(MAX_TOKENS)
        pipeline = ZImagePipeline(
            transformer=_transformer(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
            vae=flux_vae(),
            text_encoder=Qwen3Model(qwen3_config(tokenizer, layers=3)).eval(),
            tokenizer=tokenizer,
        )
    pipeline.save_pretrained(folder)
    return folder


def call_z_image(
    pipeline: Any, prompts: list[str], noise: Tensor, guidance: float, schedule: dict[str, Any]
) -> Tensor:
    """Latents of the pipeline's own call; it counts guidance from 0, and writes into the list of its prompts."""
    height, width = (side * pipeline.vae_scale_factor for side in noise.shape[2:])
    arguments = {"output_type": "latent", "height": height, "width": width} | schedule
    return pipeline(
        list(prompts), latents=noise, guidance_scale=guidance - 1, max_sequence_length=MAX_TOKENS, **arguments
    ).images


def _transformer() -> ZImageTransformer2DModel:
    """One refiner of each stream and two layers; the rotary table holds two lengths of padded captions."""
    transformer = ZImageTransformer2DModel(
        in_channels=CHANNELS,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[4, 6, 6],
        axes_lens=[128, 16, 16],
    )
    torch.nn.init.normal_(transformer.x_pad_token)
    torch.nn.init.normal_(transformer.cap_pad_token)
    return transformer.eval()
