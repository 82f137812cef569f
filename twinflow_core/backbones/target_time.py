"""Target time r for a network that knows only t, by one hook on its time MLP.

    temb = E1(t) + r E2(r)

E2 starts at zero, so that at initialisation F(x_t, t, r) is the pretrained F(x_t, t) for every r. The term
vanishes at r = 0, so that the few-step generator F(x_t, t, 0) is at every moment the stock architecture with
stock weights: it saves, loads and samples without this file. (The authors use (t - r) E2(r), which vanishes
at r = t instead and leaves a checkpoint that stock pipelines cannot run.)
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from diffusers.models.embeddings import Timesteps
from torch import Tensor, nn

TIME_SCALE = 1000.0


class TargetTime(nn.Module):
    """r E2(r), added to the output of the host's time MLP while `r` is set.

    E2 starts as a copy of the host with its last layer zeroed: the features of time are learnt already, and
    two runs start from the same bits.

    Args:
        host: the network's time MLP, sinusoids [B, frequencies] to [B, width]: a `TimestepEmbedding`, or any
            other module whose linear layers are registered from the first to the last.

    State: `r` is None (the hook does nothing) or a [B] tensor with values in [-1, 1], set by the caller
    before each forward. Not safe for two threads on one model.
    """

    def __init__(self, host: nn.Module) -> None:
        super().__init__()
        self.embed = copy.deepcopy(host)
        layers = [layer for layer in self.embed.modules() if isinstance(layer, nn.Linear)]
        self.project = Timesteps(layers[0].in_features, flip_sin_to_cos=True, downscale_freq_shift=0)
        for parameter in layers[-1].parameters():
            nn.init.zeros_(parameter)
        self.r: Tensor | None = None
        host.register_forward_hook(self._add)

    def _add(self, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        if self.r is None:
            return output
        frequencies = self.project(TIME_SCALE * self.r).to(output.dtype)
        return output + self.r.unsqueeze(1).to(output.dtype) * self.embed(frequencies)


def sign_sensitivity(velocity: Tensor, mirrored: Tensor) -> float:
    """||F(x, -t, -t) - F(x, t, t)|| / ||F(x, t, t)||: zero if the network cannot tell -t from t."""
    return float(torch.linalg.vector_norm(mirrored - velocity) / torch.linalg.vector_norm(velocity))
