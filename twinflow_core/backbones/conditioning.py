"""What a denoiser is told about the prompt, row by row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """Prompt embeddings of a batch.

    Attributes:
        prompt_embeds: [B, T, D].
        pooled: [B, P].
    """

    prompt_embeds: Tensor
    pooled: Tensor

    def __len__(self) -> int:
        return self.prompt_embeds.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> Conditioning:
        return Conditioning(self.prompt_embeds[rows], self.pooled[rows])

    def repeat(self, rows: int) -> Conditioning:
        """One row's conditioning for `rows` rows, without copying memory."""
        return Conditioning(self.prompt_embeds.expand(rows, -1, -1), self.pooled.expand(rows, -1))

    def to(self, device: torch.device | str) -> Conditioning:
        """The same on another device."""
        return Conditioning(self.prompt_embeds.to(device), self.pooled.to(device))

    @staticmethod
    def cat(parts: list[Conditioning]) -> Conditioning:
        """Rows of several batches, one after the other."""
        return Conditioning(
            torch.cat([part.prompt_embeds for part in parts]), torch.cat([part.pooled for part in parts])
        )
