"""Real FluxPipelines, shrunk to random weights of a megabyte, for tests: dev with its guidance input, schnell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tests.backbones.tiny_text import t5_encoder, t5_tokenizer
from tests.backbones.tiny_vae import CHANNELS, flux_vae
from tests.tiny_pipeline import clip_tokenizer
from twinflow_core.backbones.packing import pack, unpack

T5_TOKENS = 10


def build_tiny_flux_dev(folder: Path, seed: int = 0) -> Path:
    """Dev: a guidance input, and times that shift with the number of tokens."""
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15
    )
    return _build(folder, seed, scheduler, guidance_embeds=True)


def build_tiny_flux_schnell(folder: Path, seed: int = 0) -> Path:
    """Schnell: no guidance input, times without a shift."""
    return _build(folder, seed, FlowMatchEulerDiscreteScheduler(shift=1.0), guidance_embeds=False)


def call_flux(
    pipeline: Any, prompts: list[str], noise: Tensor, guidance: float, schedule: dict[str, Any]
) -> Tensor:
    """Latents of the pipeline's own call, which has no guidance but that of the network's input."""
    height, width = (side * pipeline.vae_scale_factor for side in noise.shape[2:])
    arguments = {"output_type": "latent", "height": height, "width": width} | schedule
    made = pipeline(prompts, latents=pack(noise), max_sequence_length=T5_TOKENS, **arguments).images
    return made if arguments["output_type"] != "latent" else unpack(made, *noise.shape[2:])


def _build(
    folder: Path, seed: int, scheduler: FlowMatchEulerDiscreteScheduler, guidance_embeds: bool
) -> Path:
    """32 x 32 images, latents [4, 8, 8], 10 tokens of T5."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer, tokenizer_2 = clip_tokenizer(), t5_tokenizer(T5_TOKENS)
        pipeline = FluxPipeline(
            transformer=_transformer(guidance_embeds),
            scheduler=scheduler,
            vae=flux_vae(),
            text_encoder=_clip(tokenizer),
            tokenizer=tokenizer,
            text_encoder_2=t5_encoder(tokenizer_2, width=24),
            tokenizer_2=tokenizer_2,
        )
    pipeline.save_pretrained(folder)
    return folder


def _transformer(guidance_embeds: bool) -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        in_channels=4 * CHANNELS,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        pooled_projection_dim=16,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 6, 6),
    ).eval()


def _clip(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config).eval()
