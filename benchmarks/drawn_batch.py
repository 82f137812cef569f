"""The same batch for every way of drawing it: one prompt, its embeddings, and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, from_numpy

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.noise import image_noise


@dataclass(frozen=True)
class DrawnBatch:
    """Conditioning of B rows and noises [1, B, C, H, W]."""

    conditioning: Conditioning
    noises: np.ndarray

    @property
    def in_torch(self) -> Tensor:
        """The noises for torch."""
        return from_numpy(self.noises)

    @property
    def for_onnx(self) -> dict[str, np.ndarray]:
        """The inputs of the packaged generator."""
        return {
            "noises": self.noises,
            **{name: part.numpy() for name, part in self.conditioning.tensors().items()},
        }


def draw_batch(backbone: Backbone, prompt: str, batch: int) -> DrawnBatch:
    """B rows of one prompt, each with noise of its own, the same in every call."""
    noises = [image_noise(0, str(row), 1, backbone.latent_shape) for row in range(batch)]
    return DrawnBatch(backbone.encode_prompts([prompt] * batch), np.stack(noises, axis=1))
