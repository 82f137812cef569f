"""Rows that were encoded before, found by what they were made from; outside of any stage's output.

The cache is a folder of whole encoded shards, each under the hash of the keys of all that it holds. A shard that
is wanted again unchanged is linked to where it is wanted, any single row of any shard can be copied. It holds the
shards of the last finished encoding and those of an unfinished one, so it takes about the disk that the encoded
data take.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from twinflow_core.encoding.shard_files import CAPTION_KEYS, KEY_BYTES, LATENT_KEYS, SUFFIX

Keys = NDArray[np.uint8]
# A shard's tensors, and the row in it.
Place = tuple[dict[str, Tensor], int]


class KeyIndex:
    """Where keys lie: 16 bytes of memory each, by the first half of the key; the caller checks the rest."""

    def __init__(self) -> None:
        self._halves = np.empty(0, np.uint64)
        self._files = np.empty(0, np.int32)
        self._rows = np.empty(0, np.int32)

    def add(self, keys: Keys, file: int) -> None:
        """Note the keys uint8 [n, 16] of a file's rows. A key that is known already keeps its place."""
        halves = np.concatenate([self._halves, _first_half(keys)])
        files = np.concatenate([self._files, np.full(len(keys), file, np.int32)])
        rows = np.concatenate([self._rows, np.arange(len(keys), dtype=np.int32)])
        self._halves, first = np.unique(halves, return_index=True)
        self._files, self._rows = files[first], rows[first]

    def find(self, keys: Keys) -> list[tuple[int, int] | None]:
        """(file, row) of each key uint8 [n, 16] that may be there, None for one that is not."""
        if len(self._halves) == 0:
            return [None] * len(keys)
        halves = _first_half(keys)
        places = np.minimum(np.searchsorted(self._halves, halves), len(self._halves) - 1)
        return [
            (int(self._files[place]), int(self._rows[place])) if self._halves[place] == half else None
            for place, half in zip(places, halves, strict=True)
        ]


class EncodeCache:
    """The folder of encoded shards. Many processes may use it at once; one of them prunes it at the end.

    Args:
        folder: made if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._names: list[str] = []
        self._shards: list[dict[str, Tensor]] = []
        self._indexes = {LATENT_KEYS: KeyIndex(), CAPTION_KEYS: KeyIndex()}

    def whole(self, name: str) -> Path | None:
        """The shard of that name, if it is there and sound."""
        path = self._folder / f"{name}{SUFFIX}"
        return path if path.is_file() and _opened(path) is not None else None

    def put(self, name: str, shard: Path) -> None:
        """Keep a finished shard. It appears whole or not at all."""
        partial = self._folder / f".{uuid.uuid4().hex}"
        link_or_copy(shard, partial)
        partial.replace(self._folder / f"{name}{SUFFIX}")

    def find(self, kind: str, keys: Keys) -> list[Place | None]:
        """For each key, the tensors of a shard that holds it and the row there, or None.

        Args:
            kind: `LATENT_KEYS` or `CAPTION_KEYS`.
            keys: uint8 [n, 16].
        """
        self._see_new_shards()
        found: list[Place | None] = []
        for key, place in zip(keys, self._indexes[kind].find(keys), strict=True):
            shard = self._shards[place[0]] if place else None
            agrees = shard is not None and place is not None and bytes(key) == _key(shard, kind, place[1])
            found.append((shard, place[1]) if agrees and shard is not None and place is not None else None)
        return found

    def prune(self, kept: set[str]) -> None:
        """Remove every shard but those named, and what killed processes left half made."""
        for path in self._folder.iterdir():
            if (path.suffix == SUFFIX and path.stem not in kept) or path.name.startswith("."):
                path.unlink(missing_ok=True)

    def _see_new_shards(self) -> None:
        for path in sorted(self._folder.glob(f"[!.]*{SUFFIX}")):
            if path.name in self._names:
                continue
            shard = _opened(path)
            if shard is None:
                path.unlink(missing_ok=True)
                continue
            for kind, index in self._indexes.items():
                index.add(shard[kind].numpy(), len(self._shards))
            self._names.append(path.name)
            self._shards.append(shard)


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system can make one, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _opened(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a shard, mapped from disk and not read; None for a file that is damaged or gone."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        return None
    complete = all(
        tensors.get(kind, torch.empty(0)).shape[1:] == (KEY_BYTES,) for kind in (LATENT_KEYS, CAPTION_KEYS)
    )
    return tensors if complete else None


def _key(shard: dict[str, Tensor], kind: str, row: int) -> bytes:
    return shard[kind][row].numpy().tobytes()


def _first_half(keys: Keys) -> NDArray[np.uint64]:
    return np.ascontiguousarray(keys[:, : KEY_BYTES // 2]).view(np.uint64).reshape(-1)
