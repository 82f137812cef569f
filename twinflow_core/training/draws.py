"""Stateless randomness: every draw of a global batch comes from hash(seed, step, purpose).

A run that was killed and resumed therefore sees the same draws as one that was not, with nothing to restore.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def generator(seed: int, step: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on its arguments alone; what it draws differs between kinds of device."""
    digest = hashlib.sha256(f"{seed}/{step}/{purpose}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little", signed=True))


def normal(seed: int, step: int, purpose: str, shape: tuple[int, ...]) -> Tensor:
    """Standard normal float32 values."""
    return torch.randn(shape, generator=generator(seed, step, purpose))


def uniform(seed: int, step: int, purpose: str, rows: int) -> Tensor:
    """Uniform float32 values in [0, 1), shape [rows]."""
    return torch.rand(rows, generator=generator(seed, step, purpose))


def batch_rows(seed: int, step: int, batch_size: int, dataset_rows: int) -> Tensor:
    """The dataset rows of a step's global batch: consecutive pieces of one permutation an epoch.

    Args:
        seed: the run's seed.
        step: 0-based.
        batch_size: rows a step.
        dataset_rows: rows in all; may be fewer than the batch.

    Returns:
        int64 [batch_size].
    """
    first = step * batch_size
    rows: list[Tensor] = []
    while len(rows) == 0 or sum(map(len, rows)) < batch_size:
        position = first + sum(map(len, rows))
        epoch, offset = divmod(position, dataset_rows)
        order = torch.randperm(dataset_rows, generator=generator(seed, epoch, "epoch"))
        rows.append(order[offset : offset + batch_size - (position - first)])
    return torch.cat(rows)
