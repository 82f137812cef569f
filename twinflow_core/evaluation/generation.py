"""Images of a torch model for evaluation: same prompts and same noise for every model compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.evaluation.prompts import Prompt
from twinflow_core.noise import image_noise
from twinflow_core.progress import Reporter
from twinflow_core.sampling.few_step import sample_few_steps
from twinflow_core.sampling.many_step import sample_many_steps

# (noises [k, B, C, H, W], conditioning of B rows) -> latents [B, C, H, W]
Sampler = Callable[[Tensor, Conditioning], Tensor]


def evaluation_key(prompt: Prompt, sample: int) -> str:
    """The noise key of an image: every model and runtime that is compared draws by it."""
    return f"{prompt.id}/{sample}"


def few_step_sampler(backbone: Backbone) -> Sampler:
    """As many steps with F(x_t, t, 0) as there are noises; on a base model, its naive few-step use."""

    def sample(noises: Tensor, conditioning: Conditioning) -> Tensor:
        return sample_few_steps(lambda x_t, t, r: backbone.velocity(x_t, t, r, conditioning), noises)

    return sample


def many_step_sampler(backbone: Backbone, steps: int, guidance: float) -> Sampler:
    """Euler steps along F(x_t, t, t) with guidance, from the first noise."""
    empty = backbone.encode_prompts([""])
    scale = backbone.many_step_guidance(guidance)

    def velocity(x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        return backbone.velocity(x_t, t, t, conditioning)

    def sample(noises: Tensor, conditioning: Conditioning) -> Tensor:
        scheduler = backbone.many_step_scheduler(steps, noises.device)
        return sample_many_steps(velocity, noises[0], conditioning, empty, scheduler, scale, backbone.guide)

    return sample


@torch.no_grad()
def generate_images(
    backbone: Backbone,
    sampler: Sampler,
    prompts: Sequence[Prompt],
    *,
    evaluations: int,
    images_per_prompt: int,
    seed: int,
    batch_size: int,
    label: str,
) -> np.ndarray:
    """uint8 [prompts x images_per_prompt, H, W, 3], all images of a prompt in a row.

    Args:
        backbone: encodes the prompts and decodes the latents.
        sampler: makes latents.
        prompts: what to draw.
        evaluations: noises an image: the steps of a few-step sampler, 1 for a many-step one.
        images_per_prompt: how many of each.
        seed: of the noise.
        batch_size: images at once.
        label: for the progress bar.
    """
    conditioning = backbone.encode_prompts([prompt.text for prompt in prompts])
    wanted = [(i, k) for i in range(len(prompts)) for k in range(images_per_prompt)]
    images: list[np.ndarray] = []
    with Reporter(label, len(wanted)) as reporter:
        for first in range(0, len(wanted), batch_size):
            batch = wanted[first : first + batch_size]
            keys = [evaluation_key(prompts[i], k) for i, k in batch]
            noises = [image_noise(seed, key, evaluations, backbone.latent_shape) for key in keys]
            rows = torch.tensor([i for i, _ in batch])
            # A copy in torch's own memory: NumPy's alignment varies, and with it the last bits of a convolution.
            stacked = torch.from_numpy(np.stack(noises, axis=1)).clone()
            latents = sampler(stacked, conditioning[rows])
            images.append(to_pixels(backbone.decode_latents(latents)))
            reporter.update(first + len(batch))
    return np.concatenate(images)


def to_pixels(images: Tensor) -> np.ndarray:
    """float [B, 3, H, W] in [0, 1] as uint8 [B, H, W, 3], rounded to the nearest."""
    return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
