"""Every supported family as a tiny real pipeline, and how its own pipeline is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tests.backbones.tiny_flux import build_tiny_flux_dev, call_flux
from tests.backbones.tiny_flux2 import build_tiny_flux2_klein, call_klein
from tests.backbones.tiny_qwen_image import build_tiny_qwen_image, call_qwen_image
from tests.backbones.tiny_sana import build_tiny_sana, call_sana, sana_many_steps
from tests.backbones.tiny_z_image import build_tiny_z_image, call_z_image
from tests.tiny_pipeline import build_tiny_pipeline

RESOLUTION = 32


def stock_steps(pipeline: Any, steps: int) -> dict[str, Any]:
    """How a pipeline that takes Euler steps of its own accord is asked for some."""
    return {"num_inference_steps": steps}


@dataclass(frozen=True)
class Family:
    """A family under test.

    Attributes:
        name: as `Backbone.family`.
        build: makes its tiny pipeline and saves it to a folder.
        call: its own pipeline: (pipeline, prompts, noise [B, C, H, W], guidance scale, further arguments), to
            latents [B, C, H, W], or to images where these arguments ask for another `output_type`. Scale 1 is
            without guidance.
        many_steps: such arguments for a number of steps; may change the pipeline's scheduler.
        absent: parts to pass as None when the folder is loaded.
        guidance: a scale to compare at; 1 where the family knows no unconditional velocity.
    """

    name: str
    build: Callable[[Path], Path]
    call: Callable[[Any, list[str], Tensor, float, dict[str, Any]], Tensor]
    many_steps: Callable[[Any, int], dict[str, Any]] = stock_steps
    absent: tuple[str, ...] = ()
    guidance: float = 3.0


def call_sd3(
    pipeline: Any, prompts: list[str], noise: Tensor, guidance: float, arguments: dict[str, Any]
) -> Tensor:
    """See `Family.call`."""
    height, width = (side * pipeline.vae_scale_factor for side in noise.shape[2:])
    return pipeline(
        prompts,
        latents=noise,
        height=height,
        width=width,
        guidance_scale=guidance,
        max_sequence_length=1,
        **{"output_type": "latent", **arguments},
    ).images


FAMILIES = (
    Family("flux", build_tiny_flux_dev, call_flux, guidance=1.0),
    Family("flux2-klein", build_tiny_flux2_klein, call_klein),
    Family("qwen-image", build_tiny_qwen_image, call_qwen_image),
    Family("sana", build_tiny_sana, call_sana, sana_many_steps),
    Family("sd3", build_tiny_pipeline, call_sd3, absent=("text_encoder_3", "tokenizer_3")),
    Family("z-image", build_tiny_z_image, call_z_image),
)

# By name, for those who need no more than a saved pipeline.
BUILDERS = {family.name: family.build for family in FAMILIES}
