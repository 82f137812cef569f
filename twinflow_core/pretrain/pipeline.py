"""Putting a base together: a stock diffusers Stable Diffusion 3 folder out of the trained parts."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

PARTS = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "transformer", "vae", "scheduler")


def assemble(
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    encoders: tuple[CLIPTextModelWithProjection, CLIPTextModelWithProjection],
    transformer: SD3Transformer2DModel,
    shift: float,
) -> StableDiffusion3Pipeline:
    """The parts as one pipeline, without a T5 encoder.

    Args:
        vae: the autoencoder, its scaling and shift set.
        tokenizer: serves both encoders.
        encoders: the two text encoders.
        transformer: the denoiser.
        shift: the sampler's time shift; 1 steps evenly, above 1 takes more steps near noise.
    """
    # Where the autoencoder was loaded from would otherwise be written into its config.
    vae.register_to_config(_name_or_path="")
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        vae=vae,
        text_encoder=encoders[0],
        tokenizer=tokenizer,
        text_encoder_2=encoders[1],
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )


def save_base(pipeline: StableDiffusion3Pipeline, folder: Path) -> None:
    """Write the pipeline in diffusers' layout, replacing only its own parts in the folder.

    The denoiser, most of the weight, is written in half precision, and loads as float32.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.save_pretrained(partial)
    half = SD3Transformer2DModel.from_config(pipeline.transformer.config)
    half.load_state_dict(pipeline.transformer.state_dict())
    half.to(torch.float16).save_pretrained(partial / "transformer")
    folder.mkdir(parents=True, exist_ok=True)
    for part in (*PARTS, "model_index.json"):
        target = folder / part
        if target.is_dir():
            shutil.rmtree(target)
        (partial / part).replace(target)
    shutil.rmtree(partial)


def load_base(folder: Path) -> StableDiffusion3Pipeline:
    """A base from its folder, every part in float32 and not training."""
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        folder,
        text_encoder_3=None,
        tokenizer_3=None,
        torch_dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
    )
    for part in (pipeline.transformer, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
        part.requires_grad_(False).eval()
    return pipeline
