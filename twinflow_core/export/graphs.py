"""The modules that become graphs: each part of the pipeline once, time told apart from the rest.

`export.compose` makes whole graphs of them. What few-step sampling never varies (times, latents' scale, context
length) is fixed there: a generator's graph has no sampler to set.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from twinflow_core.backbones.target_time import TIME_SCALE


class TimeGiven(nn.Module):
    """In place of SD3's time and text embedder: takes a finished time embedding, adds the pooled text."""

    def __init__(self, text_embedder: nn.Module) -> None:
        super().__init__()
        self.text_embedder = text_embedder

    def forward(self, time_embedding: Tensor, pooled: Tensor) -> Tensor:
        """[B, width] of time embeddings [B, width], or one [1, width] for all, and pooled embeddings [B, P]."""
        return time_embedding + self.text_embedder(pooled)


class TimeEmbedding(nn.Module):
    """Timesteps to time embeddings, by SD3's own sine and MLP."""

    def __init__(self, embedder: Any) -> None:
        super().__init__()
        self.project = embedder.time_proj
        self.embed = embedder.timestep_embedder

    def forward(self, timestep: Tensor) -> Tensor:
        """[B, width] of timesteps [B] in [0, 1000]."""
        return self.embed(self.project(timestep))

    @torch.no_grad()
    def at(self, times: Sequence[float]) -> list[Tensor]:
        """Embeddings [1, width] of times in [0, 1].

        One row at a time: a matrix product of several rows may round differently. Computed here, in torch, they
        become constants of a graph: besides the saving, a runtime's own sine of 1000 would be off in the fourth
        decimal.
        """
        return [self(torch.tensor([TIME_SCALE * time])) for time in times]


class GivenTimeTransformer(nn.Module):
    """The denoiser without its time MLP, which few-step generators need at k known times only."""

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        without_time = TimeGiven(transformer.time_text_embed.text_embedder)
        self.transformer = _with_child(transformer, "time_text_embed", without_time)

    def forward(
        self, hidden_states: Tensor, time_embedding: Tensor, prompt_embeds: Tensor, pooled: Tensor
    ) -> Tensor:
        """Velocity [B, C, h, w] of latents [B, C, h, w], embeddings of time [B or 1, width] and prompts."""
        return self.transformer(
            hidden_states=hidden_states,
            timestep=time_embedding,
            encoder_hidden_states=prompt_embeds,
            pooled_projections=pooled,
            return_dict=False,
        )[0]


class SplitTextEncoder(nn.Module):
    """One CLIP text encoder with the outputs, in the order, that optimum-onnx names."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        """text_embeds [B, P], last_hidden_state [B, L, W], then every layer's hidden state."""
        output = self.encoder(input_ids, output_hidden_states=True)
        return (output.text_embeds, output.last_hidden_state, *output.hidden_states)


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
