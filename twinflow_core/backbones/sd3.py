"""Stable Diffusion 3 and 3.5: MMDiT on BCHW latents, CLIP (and T5) text, velocity z - x, time times 1000."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.scaled_latents import decode_scaled, encode_scaled
from twinflow_core.backbones.target_time import TIME_SCALE
from twinflow_core.backbones.velocity import Velocity

T5_TOKENS = 256
# Without T5 the pipeline appends this many zero states in its place. They carry nothing and cost attention.
ZERO_STATES = 1


class Sd3Velocity(Velocity):
    """F(x_t, t, r) of an SD3 transformer, which takes times 1000 t and pooled text."""

    def __init__(self, transformer: Any) -> None:
        super().__init__(transformer, transformer.time_text_embed.timestep_embedder)

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """See `Velocity.predict`."""
        return self.transformer(
            hidden_states=x_t,
            timestep=TIME_SCALE * t,
            encoder_hidden_states=conditioning.prompt_embeds,
            pooled_projections=conditioning.pooled,
            return_dict=False,
        )[0]


class Sd3Backbone(Backbone):
    """A loaded SD3 pipeline; T5 may be left out."""

    family = "sd3"
    pipeline_type = StableDiffusion3Pipeline
    velocity_type = Sd3Velocity
    optional_parts = ("text_encoder_3", "tokenizer_3")

    @property
    def native_resolution(self) -> int:
        """See `Backbone.native_resolution`."""
        return self.pipeline.transformer.config.sample_size * self.pipeline.vae_scale_factor

    @property
    def size_multiple(self) -> int:
        """See `Backbone.size_multiple`."""
        return self.pipeline.vae_scale_factor * self.pipeline.transformer.config.patch_size

    @property
    def longest_side(self) -> int:
        """See `Backbone.longest_side`; other sizes are cut out of the middle of one table."""
        return self.pipeline.transformer.config.pos_embed_max_size * self.size_multiple

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """See `Backbone.encode_prompts`."""
        embeds, _, pooled, _ = self.pipeline.encode_prompt(
            prompt=prompts,
            prompt_2=None,
            prompt_3=None,
            do_classifier_free_guidance=False,
            device=self.pipeline.device,
            max_sequence_length=T5_TOKENS if self.pipeline.text_encoder_3 else ZERO_STATES,
        )
        return Conditioning(embeds, pooled)

    @property
    def max_tokens(self) -> int:
        """See `Backbone.max_tokens`; the first text encoder's limit."""
        return self.pipeline.tokenizer_max_length

    def encode_images(self, images: Tensor) -> Tensor:
        """See `Backbone.encode_images`."""
        return encode_scaled(self.pipeline.vae, images)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """See `Backbone.decode_latents`."""
        return decode_scaled(self.pipeline.vae, latents)
