"""Euler schedules shifted by the size of the image, as the pipelines of Qwen-Image and FLUX make them."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.qwenimage.pipeline_qwenimage import calculate_shift


def shifted_by_size(
    scheduler: FlowMatchEulerDiscreteScheduler, steps: int, tokens: int, device: torch.device
) -> FlowMatchEulerDiscreteScheduler:
    """The scheduler, set for `steps` times 1 .. 1/steps shifted by the number of image tokens.

    Args:
        scheduler: changed in place.
        steps: how many.
        tokens: of one image, after packing.
        device: of its times.
    """
    config = scheduler.config
    mu = calculate_shift(
        tokens,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu, device=device)
    return scheduler
