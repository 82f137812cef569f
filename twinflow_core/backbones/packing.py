"""Latents as the tokens of Qwen-Image and FLUX.1: each 2x2 square of pixels is one token of 4 C numbers."""

from __future__ import annotations

from torch import Tensor

# Side of a token in latents, whether the pipeline packs them or the transformer cuts them itself.
PATCH = 2


def pack(latents: Tensor) -> Tensor:
    """Tokens [B, H/2 W/2, 4 C], row by row, of latents [B, C, H, W]; H and W are even."""
    batch, channels, height, width = latents.shape
    squares = latents.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return squares.reshape(batch, (height // 2) * (width // 2), channels * 4)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Latents [B, C, H, W] of tokens [B, H/2 W/2, 4 C]."""
    batch, _, numbers = tokens.shape
    squares = tokens.view(batch, height // 2, width // 2, numbers // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return squares.reshape(batch, numbers // 4, height, width)
