"""The autoencoder of the bundled base: small, with a decoder that bears a little noise in its latents."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F

from twinflow_core.pretrain.recipe import VaeRecipe

Progress = Callable[[str], None]


def build_vae(recipe: VaeRecipe) -> AutoencoderKL:
    """An untrained autoencoder in the style of SD3: no quantisation convolutions, no attention in the middle."""
    depth = len(recipe.channels)
    return AutoencoderKL(
        block_out_channels=recipe.channels,
        down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=recipe.latent_channels,
        sample_size=32,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        force_upcast=False,
        scaling_factor=1.0,
        shift_factor=0.0,
    )


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 [N, H, W, 3] to float32 [N, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def to_images(tensor: torch.Tensor) -> np.ndarray:
    """float [N, 3, H, W] in [-1, 1] to uint8 [N, H, W, 3]; values outside are clipped."""
    return tensor.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy()


def train_vae(recipe: VaeRecipe, images: np.ndarray, seed: int, progress: Progress) -> AutoencoderKL:
    """Train from scratch, then set scaling and shift so that latents have mean 0 and deviation 1.

    Args:
        recipe: sizes and rates.
        images: uint8 [N, 32, 32, 3].
        seed: of the weights and of every draw.
        progress: told a line now and then.
    """
    torch.manual_seed(seed)
    vae = build_vae(recipe)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=recipe.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.lr, total_steps=recipe.steps, pct_start=0.05
    )
    draws = torch.Generator().manual_seed(seed)
    for step in range(recipe.steps):
        picked = torch.randint(len(images), (recipe.batch,), generator=draws)
        loss, error = _loss(vae, to_tensor(images[picked.numpy()]), recipe, draws)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 250 == 0:
            progress(f"vae {step + 1}/{recipe.steps} loss {loss.item():.4f} error {error:.4f}")
    vae.eval()
    _normalise(vae, images[:4096])
    return vae


def _loss(
    vae: AutoencoderKL, pixels: torch.Tensor, recipe: VaeRecipe, draws: torch.Generator
) -> tuple[torch.Tensor, float]:
    """Reconstruction (L1 + squared) with a light KL; and the L1 alone for the log."""
    posterior = vae.encode(pixels).latent_dist
    latents = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=draws)
    amount = recipe.latent_noise * torch.rand(len(pixels), 1, 1, 1, generator=draws)
    noise = torch.randn(latents.shape, generator=draws) * latents.detach().std()
    decoded = vae.decode(latents + amount * noise).sample
    kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
    error = F.l1_loss(decoded, pixels)
    return error + F.mse_loss(decoded, pixels) + recipe.kl * kl, error.item()


@torch.no_grad()
def _normalise(vae: AutoencoderKL, images: np.ndarray) -> None:
    latents = vae.encode(to_tensor(images)).latent_dist.mean
    vae.register_to_config(shift_factor=float(latents.mean()), scaling_factor=float(1 / latents.std()))


@torch.no_grad()
def encode_images(vae: AutoencoderKL, images: np.ndarray, batch: int = 512) -> torch.Tensor:
    """The posterior means of pictures as normalised latents, float32 [N, C, 8, 8]."""
    shift, scale = vae.config.shift_factor, vae.config.scaling_factor
    parts = [
        (vae.encode(to_tensor(images[i : i + batch])).latent_dist.mean - shift) * scale
        for i in range(0, len(images), batch)
    ]
    return torch.cat(parts)


@torch.no_grad()
def decode_latents(vae: AutoencoderKL, latents: torch.Tensor, batch: int = 512) -> np.ndarray:
    """Normalised latents [N, C, 8, 8] to pictures, uint8 [N, 32, 32, 3]."""
    shift, scale = vae.config.shift_factor, vae.config.scaling_factor
    parts = [vae.decode(part / scale + shift).sample for part in latents.split(batch)]
    return to_images(torch.cat(parts))
