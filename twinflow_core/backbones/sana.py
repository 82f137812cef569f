"""Sana 1.0 and 1.5: linear attention on the 32-fold latents of DC-AE, Gemma-2 text, velocity z - x."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, SanaPipeline
from torch import Tensor

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.target_time import TIME_SCALE
from twinflow_core.backbones.velocity import Velocity
from twinflow_core.errors import TwinflowError

TOKENS = 300
# What the pipeline writes before a prompt, one line each.
INSTRUCTION: list[str] = (
    inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
)


class SanaVelocity(Velocity):
    """F(x_t, t, r) of a Sana transformer, which takes times 1000 t and the mask of its prompts."""

    # The feed-forward layers are convolutions of one pixel; the one in between mixes neighbours and stays.
    lora_layers = (
        "to_q", "to_k", "to_v", "to_out.0", "conv_inverted", "conv_point",
        "timestep_embedder.linear_1", "timestep_embedder.linear_2",
    )  # fmt: skip

    def __init__(self, transformer: Any) -> None:
        super().__init__(transformer, transformer.time_embed.emb.timestep_embedder)

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """See `Velocity.predict`."""
        return self.transformer(
            hidden_states=x_t,
            timestep=TIME_SCALE * t * self.transformer.config.timestep_scale,
            encoder_hidden_states=conditioning.prompt_embeds,
            encoder_attention_mask=conditioning.mask,
            return_dict=False,
        )[0]


class SanaBackbone(Backbone):
    """A loaded Sana pipeline."""

    family = "sana"
    pipeline_type = SanaPipeline
    velocity_type = SanaVelocity

    @property
    def native_resolution(self) -> int:
        """See `Backbone.native_resolution`."""
        return self.pipeline.transformer.config.sample_size * self.pipeline.vae_scale_factor

    @property
    def size_multiple(self) -> int:
        """See `Backbone.size_multiple`."""
        return self.pipeline.vae_scale_factor * self.pipeline.transformer.config.patch_size

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """See `Backbone.encode_prompts`; as the pipeline does, all but the empty one follow its instruction."""
        told = [text for text in prompts if text]
        empty = [""] * (len(prompts) - len(told))
        parts = [self._encode(told, INSTRUCTION)] if told else []
        parts += [self._encode(empty, None)] if empty else []
        order = sorted(range(len(prompts)), key=lambda row: not prompts[row])
        return Conditioning.cat(parts)[torch.tensor(order).argsort()].trimmed()

    def _encode(self, prompts: list[str], instruction: list[str] | None) -> Conditioning:
        embeds, mask, _, _ = self.pipeline.encode_prompt(
            prompts,
            do_classifier_free_guidance=False,
            device=self.pipeline.device,
            max_sequence_length=TOKENS,
            complex_human_instruction=instruction,
        )
        return Conditioning(embeds, mask=mask.bool())

    @property
    def max_tokens(self) -> int:
        """See `Backbone.max_tokens`; the instruction costs the prompt one place."""
        return TOKENS - 1

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """See `Backbone.encode_images`; DC-AE has no posterior."""
        vae = self.pipeline.vae
        return vae.encode(images, return_dict=False)[0] * vae.config.scaling_factor

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """See `Backbone.decode_latents`."""
        vae = self.pipeline.vae
        image = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
        return (image / 2 + 0.5).clamp(0, 1)

    def many_step_scheduler(self, steps: int, device: torch.device) -> FlowMatchEulerDiscreteScheduler:
        """Euler steps at the times of the pipeline's own scheduler, which is a DPM solver of second order.

        Raises:
            TwinflowError: that scheduler's times are not those of a flow.
        """
        own = self.pipeline.scheduler
        if not isinstance(own, DPMSolverMultistepScheduler):
            return super().many_step_scheduler(steps, device)
        if not own.config.use_flow_sigmas:
            raise TwinflowError(
                "The model's scheduler does not sample a flow.",
                where="scheduler/scheduler_config.json: use_flow_sigmas",
                fix="Use a Sana model with its own scheduler.",
            )
        own = DPMSolverMultistepScheduler.from_config(own.config)
        own.set_timesteps(steps)
        scheduler = FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(sigmas=own.sigmas[:-1].tolist(), device=device)
        return scheduler
