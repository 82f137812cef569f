"""One prepared shard in, one encoded shard out: the same bytes whatever was encoded before, and wherever.

A row's result must not depend on the rows beside it, or what the cache holds would show in the output. So every
batch has the same size: a short one is filled up by repeating its last row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.conditioning import PARTS, Conditioning
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.data.decode import Pixels, decode_rgb, fit
from twinflow_core.data.shards import read_captions, read_images, read_sizes
from twinflow_core.encoding.cache import EncodeCache, Keys, Place, link_or_copy
from twinflow_core.encoding.identity import DENOISERS, Encoders
from twinflow_core.encoding.shard_files import (
    CAPTION,
    CAPTION_KEYS,
    KEY_BYTES,
    LATENT_KEYS,
    LATENTS,
)
from twinflow_core.encoding.tensor_file import TensorFile
from twinflow_core.image_size import ImageSize, nearest_shape

Tell = Callable[[int], None]


@dataclass(frozen=True)
class EncodeTask:
    """All that a worker needs for one shard.

    Attributes:
        source: the prepared shard, parquet.
        target: the encoded shard to write; the texts of its captions go beside it, as `.json`.
        base: the base model's folder.
        cache: the folder of encoded shards.
        encoders: hashes of what encodes.
        size: what the images are fitted to.
        buckets: the sizes there are, of whose rows this shard holds those that `size` is nearest to; empty: all.
        batch_size: images, and captions, encoded at a time.
        device: where the encoders run.
    """

    source: Path
    target: Path
    base: Path
    cache: Path
    encoders: Encoders
    size: ImageSize
    buckets: tuple[ImageSize, ...]
    batch_size: int
    device: str


@dataclass(frozen=True)
class EncodedShard:
    """What became of a shard: its name in the cache, its rows, and how many rows had to be encoded."""

    name: str
    rows: int
    images: int
    captions: int
    cut_captions: int


def encode_shard(task: EncodeTask, tell: Tell = lambda rows: None) -> EncodedShard:
    """Write the encoded shard of a prepared one, or of those rows of it that are of a bucket.

    It is taken from the cache as far as that goes.

    Args:
        task: what to encode, where to, and with what.
        tell: told how many rows more are done, from time to time.

    Raises:
        TwinflowError: the prepared shard is damaged, or the base model cannot be loaded or draw that size.
    """
    columns = read_captions(task.source)
    rows = _rows_of_bucket(task) if task.buckets else list(range(len(columns[0])))
    captions, hashes = ([column[row] for row in rows] for column in columns)
    texts = list(dict.fromkeys(["", *captions]))
    numbers = {text: number for number, text in enumerate(texts)}
    caption = torch.tensor([numbers[text] for text in captions])
    latent_keys = _keys(task.encoders.image_key(sha256, task.size) for sha256 in hashes)
    caption_keys = _keys(map(task.encoders.text_key, texts))
    task.target.with_suffix(".json").write_text(json.dumps(texts, indent=0) + "\n", encoding="utf-8")
    name = _name(latent_keys, caption_keys, caption)
    cache = _cache(task.cache)
    whole = cache.whole(name)
    if whole is not None:
        link_or_copy(whole, task.target)
        tell(len(captions))
        return EncodedShard(name, len(captions), 0, 0, 0)
    backbone = loaded_backbone(task)
    encoder = _Encoder(backbone, task, cache)
    places = cache.find(CAPTION_KEYS, caption_keys)
    empty = encoder.prompts([""]).trimmed()
    empty = empty.padded(encoder.tokens(texts, places, empty))
    layout = {
        LATENTS: (torch.float32, (len(captions), *backbone.latent_shape)),
        CAPTION: (torch.int64, (len(captions),)),
        LATENT_KEYS: (torch.uint8, latent_keys.shape),
        CAPTION_KEYS: (torch.uint8, caption_keys.shape),
    }
    layout |= {key: (part.dtype, (len(texts), *part.shape[1:])) for key, part in empty.tensors().items()}
    with TensorFile(task.target, layout) as file:
        file.write(CAPTION, 0, caption)
        file.write(LATENT_KEYS, 0, torch.from_numpy(latent_keys))
        file.write(CAPTION_KEYS, 0, torch.from_numpy(caption_keys))
        new_captions = encoder.write_captions(file, texts, places, empty)
        new_images = encoder.write_latents(file, latent_keys, rows, tell)
    cache.put(name, task.target)
    return EncodedShard(name, len(captions), new_images, new_captions, encoder.cut)


def to_signed(images: np.ndarray) -> Tensor:
    """uint8 [B, H, W, 3] as float32 [B, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1


def release_encoders() -> None:
    """Let go of the base model and the cache that this process has opened."""
    _backbone.cache_clear()
    _cache.cache_clear()


def loaded_backbone(task: EncodeTask) -> Backbone:
    """The base model of a task at its size, its encoders on the task's device; loaded once a process.

    Raises:
        TwinflowError: it cannot be loaded, or does not make images of that size.
    """
    backbone = _backbone(task.base, task.encoders, task.device)
    key = "data.buckets" if task.buckets else "data.resolution"
    backbone.at_size(task.size.height, task.size.width, key)
    return backbone


@lru_cache(maxsize=1)
def _backbone(base: Path, encoders: Encoders, device: str) -> Backbone:
    # `encoders` tells another model in the same place apart.
    backbone = load_backbone(base)
    for name, part in backbone.pipeline.components.items():
        if isinstance(part, torch.nn.Module) and name not in DENOISERS:
            part.to(device)
    return backbone


@lru_cache(maxsize=1)
def _cache(folder: Path) -> EncodeCache:
    return EncodeCache(folder)


class _Encoder:
    """Fills a file's rows from the cache, and the rest in batches of one size."""

    def __init__(self, backbone: Backbone, task: EncodeTask, cache: EncodeCache) -> None:
        self._backbone = backbone
        self._task = task
        self._cache = cache
        self._kept: dict[int, Conditioning] = {}
        self.cut = 0

    def prompts(self, texts: list[str]) -> Conditioning:
        """The conditioning of at most a batch of texts, encoded in a batch of full size."""
        padded = texts + [texts[-1]] * (self._task.batch_size - len(texts))
        return self._backbone.encode_prompts(padded)[: len(texts)]

    def tokens(self, texts: list[str], places: list[Place | None], empty: Conditioning) -> int:
        """Tokens that this shard stores of every text: as many as its longest counts, or a fixed number.

        Where texts differ in length, all that are not in the cache are encoded here, and kept in memory.
        """
        if empty.mask is None:
            return empty.prompt_embeds.shape[1]
        self._kept = dict(self._captions(texts, places))
        return max(part.prompt_embeds.shape[1] for part in self._kept.values())

    def write_captions(
        self, file: TensorFile, texts: list[str], places: list[Place | None], like: Conditioning
    ) -> int:
        """Write the captions' tensors, each with the tokens that `like` has; how many texts had to be encoded."""
        for row, part in self._kept.items() or self._captions(texts, places):
            for name, value in part.padded(like.prompt_embeds.shape[1]).tensors().items():
                file.write(name, row, value)
        missing = [text for text, place in zip(texts, places, strict=True) if place is None]
        self.cut = self._backbone.too_long(missing) if missing else 0
        return len(missing)

    def _captions(self, texts: list[str], places: list[Place | None]) -> Iterator[tuple[int, Conditioning]]:
        """Each text's row and its conditioning without padding, from the cache or in batches of one size."""
        for row, place in enumerate(places):
            if place is not None:
                shard, there = place
                stored = {name: shard[name][there : there + 1] for name in PARTS if name in shard}
                yield row, Conditioning.of(stored).trimmed()
        missing = [row for row, place in enumerate(places) if place is None]
        for first in range(0, len(missing), self._task.batch_size):
            rows = missing[first : first + self._task.batch_size]
            encoded = self.prompts([texts[row] for row in rows])
            yield from ((row, encoded[i : i + 1].trimmed()) for i, row in enumerate(rows))

    def write_latents(self, file: TensorFile, keys: Keys, prepared: list[int], tell: Tell) -> int:
        """Write the images' latents; how many images had to be encoded.

        Args:
            file: to write to.
            keys: uint8 [n, 16], of its rows.
            prepared: the row of the prepared shard that each of them is.
            tell: see `encode_shard`.
        """
        found = self._cache.find(LATENT_KEYS, keys)
        for row, place in enumerate(found):
            if place is not None:
                shard, there = place
                file.write(LATENTS, row, shard[LATENTS][there : there + 1])
        missing = {prepared[row]: row for row, place in enumerate(found) if place is None}
        tell(len(found) - len(missing))
        rows: list[int] = []
        pixels: list[Pixels] = []
        for number, (row, image) in enumerate(read_images(self._task.source, missing), start=1):
            rows.append(missing[row])
            pixels.append(fit(decode_rgb(image), *self._task.size))
            if len(rows) == self._task.batch_size or number == len(missing):
                latents = self._latents(pixels)
                for place_, latent in zip(rows, latents, strict=True):
                    file.write(LATENTS, place_, latent[None])
                tell(len(rows))
                rows, pixels = [], []
        return len(missing)

    def _latents(self, pixels: list[Pixels]) -> Tensor:
        padded = pixels + [pixels[-1]] * (self._task.batch_size - len(pixels))
        images = to_signed(np.stack(padded)).to(self._task.device)
        return self._backbone.encode_images(images)[: len(pixels)].float().cpu()


def _rows_of_bucket(task: EncodeTask) -> list[int]:
    sizes = read_sizes(task.source)
    return [row for row, size in enumerate(sizes) if nearest_shape(task.buckets, size) == task.size]


def _keys(keys: Iterable[bytes]) -> Keys:
    return np.frombuffer(bytearray().join(keys), np.uint8).reshape(-1, KEY_BYTES)


def _name(latent_keys: Keys, caption_keys: Keys, caption: Tensor) -> str:
    """The shard's name: equal for shards that hold the same bytes."""
    digest = hashlib.sha256(len(latent_keys).to_bytes(8, "little"))
    for part in (latent_keys, caption_keys, caption.numpy()):
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()[:32]
