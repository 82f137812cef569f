"""The modules that become graphs: k evaluations from noise to image, and the text encoders that feed them.

Both fix what serving never varies (times, latents' scale, context length): a graph has no sampler to set.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from twinflow_core.backbones.sd3 import Sd3Backbone
from twinflow_core.backbones.target_time import TIME_SCALE
from twinflow_core.sampling.few_step import few_step_times


class TimeGiven(nn.Module):
    """In place of SD3's time and text embedder: takes a finished time embedding, adds the pooled text."""

    def __init__(self, text_embedder: nn.Module) -> None:
        super().__init__()
        self.text_embedder = text_embedder

    def forward(self, time_embedding: Tensor, pooled: Tensor) -> Tensor:
        """[B, width] of a time embedding [1, width] and pooled embeddings [B, P]."""
        return time_embedding + self.text_embedder(pooled)


class FewStepGenerator(nn.Module):
    """Noises and prompt embeddings to images, in k evaluations at t_i = 1 - i / k and r = 0.

    The time embeddings are computed here, in torch, and become constants of the graph: besides the saving, a
    runtime's own sine of 1000 would be off in the fourth decimal.
    """

    def __init__(self, backbone: Sd3Backbone, steps: int) -> None:
        super().__init__()
        transformer = backbone.pipeline.transformer
        embedder = transformer.time_text_embed
        self.times = few_step_times(steps)
        with torch.no_grad():
            # One row at a time: a matrix product of several rows may round differently.
            rows = [self._time_embedding(embedder, time) for time in self.times]
        self.time_embeddings: Tensor
        self.register_buffer("time_embeddings", torch.cat(rows))
        self.transformer = _with_child(transformer, "time_text_embed", TimeGiven(embedder.text_embedder))
        self.decoder = LatentDecoder(backbone)

    @staticmethod
    def _time_embedding(embedder: Any, time: float) -> Tensor:
        return embedder.timestep_embedder(embedder.time_proj(torch.tensor([TIME_SCALE * time])))

    def forward(self, noises: Tensor, prompt_embeds: Tensor, pooled_prompt_embeds: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1].

        Args:
            noises: [k, B, C, h, w], standard normal.
            prompt_embeds: [B, T, D].
            pooled_prompt_embeds: [B, P].
        """
        x = noises[0]
        for step, time in enumerate(self.times):
            x_t = noises[step] if step == 0 else time * noises[step] + (1 - time) * x
            velocity = self.transformer(
                hidden_states=x_t,
                timestep=self.time_embeddings[step : step + 1],
                encoder_hidden_states=prompt_embeds,
                pooled_projections=pooled_prompt_embeds,
                return_dict=False,
            )[0]
            x = x_t - time * velocity
        return self.decoder(x)


class LatentDecoder(nn.Module):
    """Normalised latents to images."""

    def __init__(self, backbone: Sd3Backbone) -> None:
        super().__init__()
        self.vae = backbone.pipeline.vae
        self.scale = float(self.vae.config.scaling_factor)
        self.shift = float(self.vae.config.shift_factor or 0.0)

    def forward(self, latents: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] of normalised latents [B, C, h, w]."""
        raw = latents / self.scale + self.shift
        return (self.vae.decode(raw, return_dict=False)[0] / 2 + 0.5).clamp(0, 1)


class TextEncoders(nn.Module):
    """Token ids of both CLIP tokenizers to what `StableDiffusion3Pipeline.encode_prompt` makes of them.

    Args:
        backbone: whose text encoders these are; without T5.
        context: tokens of the whole context, the zeros that stand for T5 included.
    """

    def __init__(self, backbone: Sd3Backbone, context: int) -> None:
        super().__init__()
        pipeline = backbone.pipeline
        self.encoders = nn.ModuleList([pipeline.text_encoder, pipeline.text_encoder_2])
        self.width = int(pipeline.transformer.config.joint_attention_dim)
        self.context = context

    def forward(self, input_ids: Tensor, input_ids_2: Tensor) -> tuple[Tensor, Tensor]:
        """Prompt embeddings [B, T, D] and pooled embeddings [B, P] of token ids, both int64 [B, L]."""
        outputs = [
            encoder(ids, output_hidden_states=True)
            for encoder, ids in zip(self.encoders, (input_ids, input_ids_2), strict=True)
        ]
        states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        missing = (0, self.width - states.shape[-1], 0, self.context - states.shape[1])
        pooled = torch.cat([output.text_embeds for output in outputs], dim=-1)
        return nn.functional.pad(states, missing), pooled


class SplitTextEncoder(nn.Module):
    """One CLIP text encoder with the outputs, in the order, that optimum-onnx names."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        """text_embeds [B, P], last_hidden_state [B, L, W], then every layer's hidden state."""
        output = self.encoder(input_ids, output_hidden_states=True)
        return (output.text_embeds, output.last_hidden_state, *output.hidden_states)


class SplitTransformer(nn.Module):
    """The denoiser alone, one evaluation at any time."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
    ) -> Tensor:
        """Velocity [B, C, h, w] at timesteps [B] in [0, 1000]."""
        arguments = (hidden_states, encoder_hidden_states, pooled_projections, timestep)
        return self.transformer(*arguments, return_dict=False)[0]


class SplitDecoder(nn.Module):
    """The VAE's decoder alone, on latents that are already unscaled."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latent_sample: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1], not clamped."""
        decoded: Sequence[Tensor] = self.vae.decode(latent_sample, return_dict=False)  # type: ignore[operator]
        return decoded[0]


def _with_child(module: nn.Module, name: str, child: nn.Module) -> nn.Module:
    """The module with one child replaced, sharing all weights; the original is left as it is."""
    twin = copy.copy(module)
    twin._modules = {**module._modules, name: child}
    return twin
