"""A real QwenImagePipeline with random weights: its video VAE, Qwen2.5-VL, the released scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from tokenizers import pre_tokenizers
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

from tests.backbones.tiny_merges import spelling
from twinflow_core.backbones.packing import unpack

CHANNELS = 4
# Those of the pipeline's template, spelt so that it has as many tokens as with the released tokenizer.
WORDS = (
    "system", "user", "assistant", "Describe", "Ġthe", "Ġimage", "Ġby", "Ġdetailing", "Ġcolor", "Ġshape", "Ġsize",
    "Ġtexture", "Ġquantity", "Ġtext", "Ġspatial", "Ġrelationships", "Ġof", "Ġobjects", "Ġand", "Ġbackground",
    "Ġred", "Ġblue", "Ġcircle", "Ġsquare",
)  # fmt: skip
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def build_tiny_qwen_image(folder: Path) -> Path:
    """Make the pipeline and save it: latents [4, H/8, W/8]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = _tokenizer()
        pipeline = QwenImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True,
                base_shift=0.5,
                max_shift=0.9,
                max_image_seq_len=8192,
                shift_terminal=0.02,
            ),
            vae=_vae(),
            text_encoder=_text_encoder(len(tokenizer)),
            tokenizer=tokenizer,
            transformer=_transformer(),
        )
    pipeline.save_pretrained(folder)
    return folder


def call_qwen_image(
    pipeline: Any, prompts: list[str], noise: Tensor, guidance: float, arguments: dict[str, Any]
) -> Tensor:
    """See `Family.call`."""
    rows, _, height, width = noise.shape
    drawn: Tensor = pipeline(
        prompts,
        negative_prompt=[" "] * rows,
        true_cfg_scale=guidance,
        latents=QwenImagePipeline._pack_latents(noise, *noise.shape),
        height=height * pipeline.vae_scale_factor,
        width=width * pipeline.vae_scale_factor,
        **{"output_type": "latent", **arguments},
    ).images
    return unpack(drawn, height, width) if drawn.ndim == 3 else drawn


def _transformer() -> QwenImageTransformer2DModel:
    return QwenImageTransformer2DModel(
        in_channels=4 * CHANNELS,
        out_channels=CHANNELS,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 6, 6),
    ).eval()


def _vae() -> AutoencoderKLQwenImage:
    return AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=CHANNELS,
        dim_mult=[1, 1, 2, 2],
        num_res_blocks=1,
        latents_mean=[-0.7571, -0.7089, -0.9113, 0.1075],
        latents_std=[2.8184, 1.4541, 2.3275, 2.6558],
    ).eval()


def _text_encoder(tokens: int) -> Qwen2_5_VLForConditionalGeneration:
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": tokens,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1]},
            "bos_token_id": None,
            "eos_token_id": 0,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 16,
            "fullatt_block_indexes": [0],
        },
    )
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def _tokenizer() -> Qwen2Tokenizer:
    """Qwen's byte-level BPE with merges that spell WORDS."""
    merges = spelling(WORDS)
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *dict.fromkeys(merges.values()), *SPECIAL]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=list(merges))
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL[1:]})
    return tokenizer
