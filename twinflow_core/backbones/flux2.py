"""FLUX.2, dev and klein: latents of 2 x 2 patches whitened channel by channel, velocity z - x, time in [0, 1].

Text is three layers of a language model side by side: Mistral 3 for dev, Qwen3 for klein. Dev takes a guidance
scale as an input, kept at GUIDANCE, what the stock pipeline uses unless told otherwise; klein has none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, Flux2Pipeline
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu, format_input
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle
from transformers.utils import is_torchvision_available

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.chat_text import templated_lengths
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.exact_time import ExactTime
from twinflow_core.backbones.lora import LAYERS
from twinflow_core.backbones.packing import PATCH
from twinflow_core.backbones.plain_folder import INDEX, read_index
from twinflow_core.backbones.shifted_times import shifted
from twinflow_core.backbones.target_time import TIME_SCALE
from twinflow_core.backbones.velocity import Velocity
from twinflow_core.errors import TwinflowError

GUIDANCE = 4.0


class Flux2Velocity(Velocity):
    """F(x_t, t, r) of a FLUX.2 transformer, which takes times t and tokens with their places."""

    lora_layers = (*LAYERS, "linear_in", "linear_out", "to_qkv_mlp_proj", "attn.to_out")

    def __init__(self, transformer: Any) -> None:
        super().__init__(transformer, transformer.time_guidance_embed.timestep_embedder)
        self.exact_time = ExactTime(transformer.time_guidance_embed.time_proj)

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """See `Velocity.predict`."""
        height, width = x_t.shape[2:]
        embeds = conditioning.prompt_embeds
        self.exact_time.time = TIME_SCALE * t
        tokens = self.transformer(
            hidden_states=x_t.flatten(2).transpose(1, 2),
            timestep=t,
            guidance=torch.full_like(t, GUIDANCE) if self.transformer.config.guidance_embeds else None,
            encoder_hidden_states=embeds,
            txt_ids=places(1, 1, embeds.shape[1], x_t.device),
            img_ids=places(height, width, 1, x_t.device),
            return_dict=False,
        )[0]
        return tokens.transpose(1, 2).unflatten(2, (height, width))


def places(height: int, width: int, length: int, device: torch.device) -> Tensor:
    """(0, row, column, place in the text) of every token, [height x width x length, 4]."""
    axes = (torch.arange(size, device=device) for size in (1, height, width, length))
    return torch.cartesian_prod(*axes)


class Flux2Backbone(Backbone):
    """A loaded FLUX.2 dev pipeline."""

    family = "flux2"
    pipeline_type = Flux2Pipeline
    velocity_type = Flux2Velocity

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See `Backbone.load`.

        Raises:
            TwinflowError: dev's tokenizer comes with a reader of images, whose library is not installed.
        """
        tokenizer = read_index(folder).get("tokenizer", [None, None])
        if tokenizer[1] == "PixtralProcessor" and not is_torchvision_available():
            raise TwinflowError(
                "The tokenizer of this model needs the package torchvision.",
                where=str(folder / INDEX),
                fix="Install the torchvision that fits the installed torch.",
            )
        return super().load(folder)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """See `Backbone.latent_shape`; of the patches, in which the noise lives too."""
        patch = self.size_multiple
        return (self.latent_channels, self.height // patch, self.width // patch)

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """See `Backbone.encode_prompts`."""
        embeds, _ = self.pipeline.encode_prompt(
            prompt=prompts, device=self.pipeline.device, max_sequence_length=self.max_tokens
        )
        return Conditioning(embeds)

    @property
    def max_tokens(self) -> int:
        """See `Backbone.max_tokens`; the chat's own tokens count, and padding is read too."""
        return self.pipeline.tokenizer_max_length

    def token_counts(self, prompts: list[str]) -> list[int]:
        """See `Backbone.token_counts`."""
        chats = format_input(prompts, self.pipeline.system_message)
        ids = self.pipeline.tokenizer.apply_chat_template(chats, tokenize=True, return_dict=True)["input_ids"]
        return [len(each) for each in ids]

    @property
    def guidance_built_in(self) -> bool:
        """See `Backbone.guidance_built_in`."""
        return True

    def many_step_scheduler(self, steps: int, device: torch.device) -> FlowMatchEulerDiscreteScheduler:
        """See `Backbone.many_step_scheduler`; the shift depends on the number of steps too."""
        mu = compute_empirical_mu(self.image_tokens, steps)
        return shifted(self.pipeline.scheduler.config, steps, mu, device)

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """See `Backbone.encode_images`."""
        vae = self.pipeline.vae
        mean, deviation = _statistics(vae)
        return (pixel_unshuffle(vae.encode(images).latent_dist.mode(), PATCH) - mean) / deviation

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """See `Backbone.decode_latents`."""
        vae = self.pipeline.vae
        mean, deviation = _statistics(vae)
        raw = pixel_shuffle(latents * deviation + mean, PATCH)
        return (vae.decode(raw, return_dict=False)[0] / 2 + 0.5).clamp(0, 1)


class Flux2KleinBackbone(Flux2Backbone):
    """A loaded FLUX.2 klein pipeline, distilled or base."""

    family = "flux2-klein"
    pipeline_type = Flux2KleinPipeline

    @property
    def max_tokens(self) -> int:
        """See `Flux2Backbone.max_tokens`."""
        return min(super().max_tokens, self.pipeline.tokenizer.model_max_length)

    def token_counts(self, prompts: list[str]) -> list[int]:
        """See `Backbone.token_counts`."""
        return templated_lengths(self.pipeline.tokenizer, prompts, enable_thinking=False)

    @property
    def guidance_built_in(self) -> bool:
        """See `Backbone.guidance_built_in`; klein comes distilled and as a base."""
        return bool(self.pipeline.config.is_distilled)


def _statistics(vae: Any) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the patches' channels, [1, 4 C, 1, 1] each: the VAE's batch norm holds them."""
    deviation = torch.sqrt(vae.bn.running_var + vae.config.batch_norm_eps)
    return vae.bn.running_mean.view(1, -1, 1, 1), deviation.view(1, -1, 1, 1)
