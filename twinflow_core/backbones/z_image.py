"""Z-Image: one stream of image and caption tokens, time from noise to data, velocity x - z, Qwen3 text.

The network counts time the other way round: 1 - t, 0 being noise and 1 data. Negative t reach it as numbers
between 1 and 2, so that -t and t stay two different times (mapping |t|, as the authors' wrapper does, makes
them one, and the fake branch would do nothing).
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.chat_text import templated_lengths
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.scaled_latents import decode_scaled, encode_scaled
from twinflow_core.backbones.shifted_times import shifted_by_size
from twinflow_core.backbones.velocity import Velocity

TOKENS = 512


class ZImageVelocity(Velocity):
    """F(x_t, t, r) of a Z-Image transformer, which takes times 1 - t, captions without padding, and gives x - z."""

    lora_layers = (
        "to_q", "to_k", "to_v", "to_out.0", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3",
        "t_embedder.mlp.0", "t_embedder.mlp.2",
    )  # fmt: skip

    def __init__(self, transformer: Any) -> None:
        super().__init__(transformer, transformer.t_embedder.mlp)

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """See `Velocity.predict`."""
        outputs = self.transformer(
            list(x_t.unsqueeze(2).unbind()), 1 - t, _without_padding(conditioning), return_dict=False
        )[0]
        return -torch.stack(outputs).squeeze(2)


class ZImageBackbone(Backbone):
    """A loaded Z-Image pipeline, Turbo or not."""

    family = "z-image"
    pipeline_type = ZImagePipeline
    velocity_type = ZImageVelocity

    @property
    def longest_side(self) -> int:
        """See `Backbone.longest_side`; the rotary tables have a row for each token down and across."""
        return min(self.pipeline.transformer.config.axes_lens[1:]) * self.size_multiple

    @property
    def max_tokens(self) -> int:
        """See `Backbone.max_tokens`; the chat's own tokens count."""
        return min(TOKENS, self.pipeline.tokenizer.model_max_length)

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """See `Backbone.encode_prompts`; padded on the right with zeros, which the mask takes off again."""
        # The pipeline writes the chats over the prompts of the list it is given.
        embeds, _ = self.pipeline.encode_prompt(
            prompt=list(prompts),
            device=self.pipeline.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_tokens,
        )
        padded = pad_sequence(embeds, batch_first=True)
        lengths = torch.tensor([len(each) for each in embeds], device=padded.device)
        places = torch.arange(padded.shape[1], device=padded.device)
        return Conditioning(padded, mask=places < lengths[:, None])

    def token_counts(self, prompts: list[str]) -> list[int]:
        """See `Backbone.token_counts`."""
        return templated_lengths(self.pipeline.tokenizer, prompts, enable_thinking=True)

    def many_step_scheduler(self, steps: int, device: torch.device) -> FlowMatchEulerDiscreteScheduler:
        """See `Backbone.many_step_scheduler`."""
        return shifted_by_size(self.pipeline.scheduler.config, steps, self.image_tokens, device)

    def encode_images(self, images: Tensor) -> Tensor:
        """See `Backbone.encode_images`."""
        return encode_scaled(self.pipeline.vae, images)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """See `Backbone.decode_latents`."""
        return decode_scaled(self.pipeline.vae, latents)


def _without_padding(conditioning: Conditioning) -> list[Tensor]:
    """The rows' captions, each [its own T, D]."""
    assert conditioning.mask is not None
    lengths = conditioning.mask.sum(dim=1).tolist()
    return [embeds[:length] for embeds, length in zip(conditioning.prompt_embeds, lengths, strict=True)]
