"""FLUX.1, dev and schnell: packed latents, CLIP and T5 text, velocity z - x, time in [0, 1].

Dev has learnt to imitate guidance: its network takes the scale as an input, which is kept at GUIDANCE, what the
stock pipeline uses unless told otherwise. Schnell has no such input.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline
from torch import Tensor

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.exact_time import ExactTime
from twinflow_core.backbones.lora import LAYERS
from twinflow_core.backbones.packing import PATCH, pack, unpack
from twinflow_core.backbones.scaled_latents import decode_scaled, encode_scaled
from twinflow_core.backbones.shifted_times import shifted_by_size
from twinflow_core.backbones.target_time import TIME_SCALE
from twinflow_core.backbones.velocity import Velocity

GUIDANCE = 3.5
# T5's tokens that the two were trained with.
DEV_TOKENS, SCHNELL_TOKENS = 512, 256


class FluxVelocity(Velocity):
    """F(x_t, t, r) of a FLUX.1 transformer, which takes times t, tokens with their places, and pooled text."""

    lora_layers = (*LAYERS, "proj_mlp", "proj_out")

    def __init__(self, transformer: Any) -> None:
        super().__init__(transformer, transformer.time_text_embed.timestep_embedder)
        self.exact_time = ExactTime(transformer.time_text_embed.time_proj)

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """See `Velocity.predict`."""
        self.exact_time.time = TIME_SCALE * t
        height, width = x_t.shape[2:]
        embeds = conditioning.prompt_embeds
        tokens = self.transformer(
            hidden_states=pack(x_t),
            timestep=t,
            guidance=torch.full_like(t, GUIDANCE) if self.transformer.config.guidance_embeds else None,
            pooled_projections=conditioning.pooled,
            encoder_hidden_states=embeds,
            txt_ids=torch.zeros((embeds.shape[1], 3), device=x_t.device),
            img_ids=image_places(height // PATCH, width // PATCH, x_t.device),
            return_dict=False,
        )[0]
        return unpack(tokens, height, width)


def image_places(height: int, width: int, device: torch.device) -> Tensor:
    """(0, row, column) of every token, [height x width, 3]."""
    axes = (torch.zeros(1), torch.arange(height).float(), torch.arange(width).float())
    return torch.cartesian_prod(*axes).to(device)


class FluxBackbone(Backbone):
    """A loaded FLUX.1 pipeline for text to image."""

    family = "flux"
    pipeline_type = FluxPipeline
    velocity_type = FluxVelocity
    optional_parts = ("image_encoder", "feature_extractor")

    @property
    def latent_channels(self) -> int:
        """See `Backbone.latent_channels`."""
        return self.pipeline.transformer.config.in_channels // PATCH**2

    @property
    def max_tokens(self) -> int:
        """See `Backbone.max_tokens`; T5's, all of which are read, padding too."""
        trained = DEV_TOKENS if self.pipeline.transformer.config.guidance_embeds else SCHNELL_TOKENS
        return min(trained, self.pipeline.tokenizer_2.model_max_length)

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """See `Backbone.encode_prompts`."""
        embeds, pooled, _ = self.pipeline.encode_prompt(
            prompt=prompts, prompt_2=None, device=self.pipeline.device, max_sequence_length=self.max_tokens
        )
        return Conditioning(embeds, pooled)

    def token_counts(self, prompts: list[str]) -> list[int]:
        """See `Backbone.token_counts`; T5's. CLIP reads the first 77 for its one pooled vector."""
        return [len(ids) for ids in self.pipeline.tokenizer_2(prompts).input_ids]

    @property
    def guidance_built_in(self) -> bool:
        """See `Backbone.guidance_built_in`: dev has it in its input, schnell in its weights."""
        return True

    def many_step_scheduler(self, steps: int, device: torch.device) -> FlowMatchEulerDiscreteScheduler:
        """See `Backbone.many_step_scheduler`."""
        return shifted_by_size(self.pipeline.scheduler.config, steps, self.image_tokens, device)

    def encode_images(self, images: Tensor) -> Tensor:
        """See `Backbone.encode_images`."""
        return encode_scaled(self.pipeline.vae, images)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """See `Backbone.decode_latents`."""
        return decode_scaled(self.pipeline.vae, latents)
