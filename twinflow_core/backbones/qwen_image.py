"""Qwen-Image: MMDiT on packed latents of a video VAE, Qwen2.5-VL text, velocity z - x, times in [0, 1]."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, QwenImagePipeline
from torch import Tensor

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.exact_time import ExactTime
from twinflow_core.backbones.packing import pack, unpack
from twinflow_core.backbones.shifted_times import shifted_by_size
from twinflow_core.backbones.velocity import Velocity

TOKENS = 512
# What the model's authors give as the prompt that guidance is measured against.
EMPTY = " "


class QwenImageVelocity(Velocity):
    """F(x_t, t, r) of a Qwen-Image transformer, which casts times to its layers' type unless kept from it."""

    def __init__(self, transformer: Any) -> None:
        super().__init__(transformer, transformer.time_text_embed.timestep_embedder)
        self.exact_time = ExactTime(transformer.time_text_embed.time_proj)

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """See `Velocity.predict`."""
        rows, _, height, width = x_t.shape
        self.exact_time.time = t
        tokens = self.transformer(
            hidden_states=pack(x_t),
            timestep=t,
            encoder_hidden_states=conditioning.prompt_embeds,
            encoder_hidden_states_mask=conditioning.mask,
            img_shapes=[[(1, height // 2, width // 2)]] * rows,
            return_dict=False,
        )[0]
        return unpack(tokens, height, width)


class QwenImageBackbone(Backbone):
    """A loaded Qwen-Image pipeline."""

    family = "qwen-image"
    pipeline_type = QwenImagePipeline
    velocity_type = QwenImageVelocity

    @property
    def latent_channels(self) -> int:
        """See `Backbone.latent_channels`."""
        return self.pipeline.vae.config.z_dim

    @property
    def native_resolution(self) -> int:
        """See `Backbone.native_resolution`; no configuration names it, so it is what the pipeline draws unasked."""
        return self.pipeline.default_sample_size * self.pipeline.vae_scale_factor

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """See `Backbone.encode_prompts`."""
        embeds, mask = self.pipeline.encode_prompt(
            [prompt or EMPTY for prompt in prompts], device=self.pipeline.device, max_sequence_length=TOKENS
        )
        if mask is None:
            return Conditioning(
                embeds, mask=torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
            )
        return Conditioning(embeds, mask=mask.bool())

    @property
    def max_tokens(self) -> int:
        """See `Backbone.max_tokens`; the end of the template is read with the prompt."""
        _, end = self.pipeline.prompt_template_encode.split("{}")
        return TOKENS - len(self.pipeline.tokenizer(end).input_ids)

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """See `Backbone.encode_images`; an image is a video of one frame."""
        latents = self.pipeline.vae.encode(images.unsqueeze(2), return_dict=False)[0].mode().squeeze(2)
        mean, std = self._statistics(latents)
        return (latents - mean) / std

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """See `Backbone.decode_latents`."""
        mean, std = self._statistics(latents)
        frames = self.pipeline.vae.decode((latents * std + mean).unsqueeze(2), return_dict=False)[0]
        return (frames[:, :, 0] / 2 + 0.5).clamp(0, 1)

    def _statistics(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel, [1, C, 1, 1]."""
        config = self.pipeline.vae.config
        mean, std = (latents.new_tensor(values) for values in (config.latents_mean, config.latents_std))
        return mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """See `Backbone.guide`; every token keeps the conditional velocity's length."""
        _, _, height, width = conditional.shape
        kept = pack(conditional)
        moved = pack(super().guide(conditional, unconditional, scale))
        lengths = kept.norm(dim=-1, keepdim=True) / moved.norm(dim=-1, keepdim=True)
        return unpack(moved * lengths, height, width)

    def many_step_scheduler(self, steps: int, device: torch.device) -> FlowMatchEulerDiscreteScheduler:
        """See `Backbone.many_step_scheduler`; shifted by the size of the image."""
        return shifted_by_size(self.pipeline.scheduler.config, steps, self.image_tokens, device)
