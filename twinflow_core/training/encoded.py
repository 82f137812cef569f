"""The encoded dataset as training reads it: latents and the conditioning of their captions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.encoding.joined import Joined
from twinflow_core.encoding.shard_files import CAPTION, EMPTY_CAPTION, LATENTS, bucket_name, encoded_shards
from twinflow_core.errors import TwinflowError

__all__ = ["EMPTY_CAPTION", "Bucket", "EncodedData"]


@dataclass(frozen=True)
class Bucket:
    """Rows whose latents have one shape.

    Attributes:
        name: `WIDTHxHEIGHT` of the images; empty where the data have no buckets.
        rows: their numbers.
        shape: (C, H, W) of one row's latents.
    """

    name: str
    rows: range
    shape: tuple[int, ...]


@dataclass(frozen=True)
class EncodedData:
    """Latents [N, C, H, W], caption number of each row [N], conditioning of the K captions (0 is empty).

    H and W are those of the row's bucket: rows that are taken together come from one. Without buckets all rows
    are taken for one. What `load` gives is mapped from the shards: a batch reads its own rows from disk, the rest is
    not in memory.
    """

    latents: Tensor | Joined[Tensor]
    caption: Tensor
    conditioning: Conditioning | Joined[Conditioning]
    buckets: tuple[Bucket, ...] = ()

    def __post_init__(self) -> None:
        if not self.buckets:
            everything = Bucket("", range(len(self.latents)), tuple(self.latents[:1].shape[1:]))
            object.__setattr__(self, "buckets", (everything,))

    @classmethod
    def load(cls, folder: Path, split: str) -> EncodedData:
        """Open what the encode stage wrote.

        Args:
            folder: data/encoded.
            split: `train` or `validation`.

        Raises:
            TwinflowError: the shards are missing, or one is damaged.
        """
        shards = encoded_shards(folder, split)
        if not shards:
            raise TwinflowError(
                "The encoded data are missing.", where=f"{folder}: {split}", fix="Run the encode stage."
            )
        latents: list[Tensor] = []
        captions, conditionings, buckets, known, rows = [], [], [], 0, 0
        for name, paths in groupby(shards, bucket_name):
            first = rows
            for path in paths:
                shard, conditioning = _opened(path)
                latents.append(shard[LATENTS])
                captions.append(shard[CAPTION] + known)
                conditionings.append(conditioning)
                known += len(conditioning)
                rows += len(shard[LATENTS])
            buckets.append(Bucket(name, range(first, rows), tuple(latents[-1].shape[1:])))
        joined = Joined(conditionings, Conditioning.cat)
        return cls(Joined(latents, torch.cat), torch.cat(captions), joined, tuple(buckets))

    @property
    def empty(self) -> Conditioning:
        """The conditioning of the empty caption, one row."""
        return self.conditioning[EMPTY_CAPTION : EMPTY_CAPTION + 1]

    def __len__(self) -> int:
        return len(self.latents)


def _opened(path: Path) -> tuple[dict[str, Tensor], Conditioning]:
    """A shard's tensors, mapped from disk, and the conditioning of its captions."""
    try:
        shard = load_file(path)
        conditioning = Conditioning.of(shard)
        fits = len(shard[LATENTS]) == len(shard[CAPTION]) and int(shard[CAPTION].max()) < len(conditioning)
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise _damaged(path, str(error)) from None
    if not fits:
        raise _damaged(path, "the captions do not fit the rows")
    return shard, conditioning


def _damaged(path: Path, why: str) -> TwinflowError:
    return TwinflowError(
        f"The encoded data are damaged: {why}",
        where=str(path),
        fix="Delete the folder and run the encode stage again.",
    )
