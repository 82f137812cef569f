"""Moments of AdamW in eight bits a value, each block of at most 256 values beside its largest magnitude.

Blocks are cut within a row, so that the rows of a tensor can be shared out to any number of processes.

Levels lie in equal ratios, since an update divides one moment by the root of the other: what counts is the relative
error of each value, not of the largest. The second moment has no level at zero: one that is rounded down to zero
would turn the next update into a division by nearly nothing.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

BLOCK = 256
# The smallest level over the largest value of a block, as a power of ten.
SIGNED_DECADES, UNSIGNED_DECADES = 5, 7


def quantize(values: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    """The nearest level of each value.

    Args:
        values: float32 [rows, ...], finite; not negative unless `signed`.
        signed: with levels on both sides of zero and one at it, else above zero alone.

    Returns:
        uint8 codes [rows, blocks, size], a row's blocks all of one size (the last is filled up with zeros), and the
        float32 scale of each, [rows, blocks, 1]. A block of zeros comes back as zeros.
    """
    flat = values.flatten(1)
    width = flat.shape[1]
    count = math.ceil(width / BLOCK)
    size = math.ceil(width / count)
    blocks = nn.functional.pad(flat, (0, count * size - width)).view(len(flat), count, size)
    scales = blocks.abs().amax(dim=2, keepdim=True)
    levels = _levels(signed, values.device)
    unit = blocks / scales.clamp_min(torch.finfo(torch.float32).tiny)
    return torch.bucketize(unit, (levels[1:] + levels[:-1]) / 2, out_int32=True).to(torch.uint8), scales


def dequantize(codes: Tensor, scales: Tensor, signed: bool, shape: torch.Size) -> Tensor:
    """The float32 values, of the given shape, that `quantize` rounded to."""
    rows = (_levels(signed, codes.device)[codes.int()] * scales).flatten(1)
    return rows[:, : shape[1:].numel()].reshape(shape)


@functools.cache
def _levels(signed: bool, device: torch.device) -> Tensor:
    """The sorted levels in [-1, 1] or (0, 1]."""
    if not signed:
        return torch.logspace(-UNSIGNED_DECADES, 0, 256, device=device)
    above = torch.logspace(-SIGNED_DECADES, 0, 127, device=device)
    return torch.cat([-above.flip(0), torch.zeros(1, device=device), above])
