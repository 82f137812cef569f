"""Euler schedules shifted by the size of the image, as the pipelines of Qwen-Image and FLUX make them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.qwenimage.pipeline_qwenimage import calculate_shift


def shifted(
    config: Mapping[str, Any], steps: int, mu: float, device: torch.device
) -> FlowMatchEulerDiscreteScheduler:
    """A scheduler set for `steps` times 1 .. 1/steps shifted by mu.

    Args:
        config: of the pipeline's own scheduler.
        steps: how many.
        mu: the shift, as the scheduler's dynamic shifting takes it.
        device: of its times.
    """
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu, device=device)
    return scheduler


def shifted_by_size(
    config: Mapping[str, Any], steps: int, tokens: int, device: torch.device
) -> FlowMatchEulerDiscreteScheduler:
    """The same with the shift that the config gives to an image of so many tokens."""
    mu = calculate_shift(
        tokens,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )
    return shifted(config, steps, mu, device)
