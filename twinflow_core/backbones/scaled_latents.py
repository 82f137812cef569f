"""Latents of diffusers' `AutoencoderKL`, normalised by the two numbers of its config (SD3, FLUX.1, Z-Image)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def encode_scaled(vae: Any, images: Tensor) -> Tensor:
    """(z - shift) scale of the posterior's mode z; images [B, 3, H, W] in [-1, 1]."""
    latents = vae.encode(images).latent_dist.mode()
    return (latents - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor


@torch.no_grad()
def decode_scaled(vae: Any, latents: Tensor) -> Tensor:
    """Images [B, 3, H, W] in [0, 1] of normalised latents."""
    raw = latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
    return (vae.decode(raw, return_dict=False)[0] / 2 + 0.5).clamp(0, 1)
