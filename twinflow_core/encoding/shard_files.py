"""How encoded shards are named and what lies in one: the one place that its writer and its reader share."""

from __future__ import annotations

from pathlib import Path

LATENTS = "latents"
CAPTION = "caption"
# 16 bytes a row: what an image and a caption were encoded from, so that either is found again.
LATENT_KEYS = "latent_keys"
CAPTION_KEYS = "caption_keys"
KEY_BYTES = 16
SUFFIX = ".safetensors"
# Row 0 of every shard's captions is the empty one.
EMPTY_CAPTION = 0


def encoded_shards(folder: Path, split: str) -> list[Path]:
    """The shards of a split in their order; empty if there are none."""
    return sorted(folder.glob(f"{split}-*{SUFFIX}"))
