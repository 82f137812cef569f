"""The VAEs of FLUX.1 (which is Z-Image's too) and FLUX.2, a few thousand random weights each."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL, AutoencoderKLFlux2

RESOLUTION = 32
CHANNELS = 4
SHRUNK: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (8, 8, 16),
    "layers_per_block": 1,
    "latent_channels": CHANNELS,
    "norm_num_groups": 4,
    "sample_size": RESOLUTION,
}


def flux_vae() -> AutoencoderKL:
    """FLUX.1's: 32 x 32 images, latents [4, 8, 8], its own scale and shift, no quantising convolutions."""
    return AutoencoderKL(
        **SHRUNK, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False
    ).eval()


def flux2_vae() -> AutoencoderKLFlux2:
    """FLUX.2's: latents [4, 8, 8] before the patches, and statistics of the patches that are far from 0 and 1."""
    vae = AutoencoderKLFlux2(**SHRUNK)
    vae.bn.running_mean.uniform_(-0.5, 0.5)
    vae.bn.running_var.uniform_(0.5, 2.0)
    return vae.eval()
