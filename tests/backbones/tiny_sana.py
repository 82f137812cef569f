"""A real SanaPipeline with random weights: DC-AE of eightfold latents, Gemma-2, the released scheduler."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    SanaPipeline,
    SanaTransformer2DModel,
)
from torch import Tensor
from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

from tests.backbones.tiny_merges import spelling
from twinflow_core.backbones.sana import INSTRUCTION

SHIFT = 3.0
CHANNELS = 8
# What the pipeline writes before every prompt: spelt word by word, it is some hundred tokens long.
WORDS = ("red", "blue", "circle", "square", *dict.fromkeys(" ".join(INSTRUCTION).lower().split()))


def build_tiny_sana(folder: Path) -> Path:
    """Make the pipeline and save it: 32x32 images, latents [8, 4, 4]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = _tokenizer()
        pipeline = SanaPipeline(
            tokenizer=tokenizer,
            text_encoder=_text_encoder(len(tokenizer)),
            vae=_vae(),
            transformer=_transformer(),
            scheduler=DPMSolverMultistepScheduler(
                flow_shift=SHIFT, use_flow_sigmas=True, prediction_type="flow_prediction"
            ),
        )
    pipeline.save_pretrained(folder)
    return folder


def call_sana(
    pipeline: Any, prompts: list[str], noise: Tensor, guidance: float, arguments: dict[str, Any]
) -> Tensor:
    """See `Family.call`. The pipeline bins resolutions by those of the released models alone."""
    height, width = (side * pipeline.vae_scale_factor for side in noise.shape[2:])
    return pipeline(
        prompts,
        latents=noise,
        guidance_scale=guidance,
        height=height,
        width=width,
        use_resolution_binning=False,
        clean_caption=False,
        **{"output_type": "latent", **arguments},
    ).images


def sana_many_steps(pipeline: Any, steps: int) -> dict[str, Any]:
    """Gives the pipeline Euler steps in place of its solver's, at the solver's times by their formula."""
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler()
    sigmas = torch.linspace(1 - 1 / 1000, 0, steps + 1)[:-1]
    return {"num_inference_steps": steps, "sigmas": (SHIFT * sigmas / (1 + (SHIFT - 1) * sigmas)).tolist()}


def _transformer() -> SanaTransformer2DModel:
    return SanaTransformer2DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=16,
        sample_size=4,
        patch_size=1,
        qk_norm="rms_norm_across_heads",
    ).eval()


def _vae() -> AutoencoderDC:
    blocks = ("ResBlock", "ResBlock", "EfficientViTBlock", "EfficientViTBlock")
    scales = ((), (), (5,), (5,))
    return AutoencoderDC(
        latent_channels=CHANNELS,
        attention_head_dim=8,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=(8, 8, 16, 16),
        decoder_block_out_channels=(8, 8, 16, 16),
        encoder_layers_per_block=(1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales,
        scaling_factor=0.41407,
    ).eval()


def _text_encoder(tokens: int) -> Gemma2Model:
    config = Gemma2Config(
        vocab_size=tokens,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        query_pre_attn_scalar=8,
        # Both so small that they matter: the instruction is longer, and many logits are larger.
        sliding_window=16,
        attn_logit_softcapping=0.01,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    return Gemma2Model(config).eval()


def _tokenizer() -> GemmaTokenizer:
    """Gemma's BPE over letters, with merges that spell WORDS."""
    merges = spelling(f"▁{word}" for word in WORDS)
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    single = ["▁", *string.printable.replace(" ", "")]
    tokens = [*special, *dict.fromkeys([*single, *merges.values()])]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return GemmaTokenizer(vocab=vocabulary, merges=list(merges), add_bos_token=True)
