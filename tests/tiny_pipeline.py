"""A real StableDiffusion3Pipeline, shrunk to a few hundred kilobytes of random weights, for tests.

Every part is the library's own class with the features of the real model: position table larger than the
grid, a dual-attention block, RMS-normed queries and keys, two text encoders of different widths, a joint
dimension that needs padding, a VAE with scale and shift, a scheduler with shift 3, no T5.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

RESOLUTION = 32
MAX_TOKENS = 12
WORDS = "a photo of one two three four red green blue yellow circle square triangle left right above below"
WORD_END = "</w>"
START, END = "<|startoftext|>", "<|endoftext|>"


def build_tiny_pipeline(folder: Path, seed: int = 0) -> Path:
    """Make the pipeline and save it.

    Args:
        folder: where to save it; made if it is missing.
        seed: of the random weights. The same seed gives the same files.

    Returns:
        `folder`, which `StableDiffusion3Pipeline.from_pretrained(folder, text_encoder_3=None,
        tokenizer_3=None)` loads: 32x32 images, latents [4, 8, 8], 12 tokens a text encoder.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = clip_tokenizer()
        encoders = [_text_encoder(tokenizer, width, projection) for width, projection in ((32, 16), (24, 12))]
        pipeline = StableDiffusion3Pipeline(
            transformer=_transformer(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=_vae(),
            text_encoder=encoders[0],
            tokenizer=tokenizer,
            text_encoder_2=encoders[1],
            tokenizer_2=tokenizer,
            text_encoder_3=None,
            tokenizer_3=None,
        )
    pipeline.save_pretrained(folder)
    return folder


def _transformer() -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=64,
        caption_projection_dim=32,
        pooled_projection_dim=28,
        pos_embed_max_size=12,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    ).eval()


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=RESOLUTION,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def _text_encoder(tokenizer: CLIPTokenizer, width: int, projection: int) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=projection,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config).eval()


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's byte-level BPE with merges that spell WORDS; every byte has a token, so no text is unknown.

    The merges are chained by hand because `BpeTrainer` breaks ties differently from run to run.
    """
    single = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: dict[tuple[str, str], str] = {}
    for word in WORDS.split():
        parts = [*word[:-1], word[-1] + WORD_END]
        joined = parts[0]
        for part in parts[1:]:
            merges[joined, part] = joined + part
            joined += part
    tokens = [*single, *(byte + WORD_END for byte in single), *dict.fromkeys(merges.values()), START, END]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=list(merges), model_max_length=MAX_TOKENS)
