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


def shard_name(prepared: Path, bucket: str) -> str:
    """The encoded shard's file name for a prepared one: `train-64x32-00000` of a bucket, `train-00000` without."""
    split, number = prepared.stem.split("-")
    return "-".join(filter(None, (split, bucket, number))) + SUFFIX


def bucket_name(shard: Path) -> str:
    """The bucket that a shard's rows belong to; empty where there are none."""
    _, *bucket, _ = shard.stem.split("-")
    return "".join(bucket)


def encoded_shards(folder: Path, split: str) -> list[Path]:
    """The shards of a split in their order, those of one bucket together; empty if there are none."""
    return sorted(folder.glob(f"{split}-*{SUFFIX}"))
