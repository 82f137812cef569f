"""Finding images that were seen before: the same file, the same pixels, or nearly the same picture.

A near duplicate has to pass two tests, because each alone is wrong somewhere. The 64-bit perceptual hash
(imagehash's pHash) of flat drawings collides between honestly different scenes; a small thumbnail's mean
difference alone would need a comparison with every image. So the hash proposes, found through an index of its
bands, and the thumbnail decides.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from twinflow_core.data.decode import Pixels
from twinflow_core.data.rejections import Reason, Rejection
from twinflow_core.data.splits import Split

HASH_BITS = 64
THUMBNAIL_SIDE = 8
# Mean absolute difference of two thumbnails in grey levels of 255. Measured on the bundled 32x32 shapes,
# where coding errors weigh most: 99 % of the copies saved as JPEG at quality 90 lie below 2.7, half of those
# at quality 75 below 2.3 and half of those resized by a tenth below 1.6. With it and a Hamming distance of 4,
# 0.1 % of the bundled set is taken for a near duplicate.
NEAR_THUMBNAIL = 3.0
_FIRST_CAPACITY = 1024


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """All that is kept of an image to recognise it again.

    Args:
        content: SHA-256 of the encoded bytes, in hexadecimal.
        pixels: SHA-256 of the decoded pixels and their shape.
        perceptual: the 64-bit pHash.
        thumbnail: uint8 [8 * 8 * 3], the mean colour of each cell of an 8x8 grid.
    """

    content: str
    pixels: bytes
    perceptual: int
    thumbnail: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Relation:
    """What an image has to do with those before it: why it is rejected, or the split that it must share."""

    rejection: Rejection | None = None
    split: Split | None = None


def fingerprint(content: bytes, image: Pixels) -> Fingerprint:
    """The fingerprint of an image.

    Args:
        content: the encoded file.
        image: uint8 [H, W, 3], decoded from it.
    """
    picture = Image.fromarray(image)
    cells = picture.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    pixels = hashlib.sha256(repr(image.shape).encode())
    pixels.update(np.ascontiguousarray(image).data)
    return Fingerprint(
        content=hashlib.sha256(content).hexdigest(),
        pixels=pixels.digest(),
        perceptual=int.from_bytes(np.packbits(imagehash.phash(picture).hash).tobytes()),
        thumbnail=np.asarray(cells).reshape(-1),
    )


class DuplicateIndex:
    """The images kept so far, about 1 kB each; a look-up touches only those that share a band of the hash.

    Args:
        near_bits: the Hamming distance of two perceptual hashes up to which their thumbnails are compared.
    """

    def __init__(self, near_bits: int) -> None:
        self._near_bits = near_bits
        # Two hashes that differ in at most n bits agree wholly in one of n + 1 bands.
        edges = np.linspace(0, HASH_BITS, near_bits + 2).astype(int).tolist()
        self._bands = [(low, (1 << (high - low)) - 1) for low, high in pairwise(edges)]
        self._buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
        self._exact: dict[str | bytes, int] = {}
        self._hashes = np.empty(_FIRST_CAPACITY, dtype=np.uint64)
        self._thumbnails = np.empty((_FIRST_CAPACITY, THUMBNAIL_SIDE**2 * 3), dtype=np.uint8)
        self._rows: list[tuple[str, str, Split]] = []

    def relate(self, image: Fingerprint, file_name: str, caption: str) -> Relation:
        """Compare an image with all that were added.

        The same bytes or pixels in another file are an exact duplicate whatever the caption says; the same
        file again is a second caption of it, unless that caption is equal too. A near duplicate is rejected
        if its caption is equal, and shares the split of the first image that it resembles if not.

        Args:
            image: the image's fingerprint.
            file_name: its path inside the source folder.
            caption: its caption.
        """
        same = self._exact.get(image.content, self._exact.get(image.pixels))
        if same is not None:
            other = self._rows[same][0]
            if other != file_name:
                return Relation(Rejection(Reason.EXACT_DUPLICATE, f"of {other}"))
        near = self._near(image)
        for index in near:
            other, other_caption, _ = self._rows[index]
            if other == file_name and other_caption == caption:
                return Relation(Rejection(Reason.EXACT_DUPLICATE, "listed twice with one caption"))
            if other != file_name and other_caption == caption:
                return Relation(Rejection(Reason.NEAR_DUPLICATE, f"of {other}"))
        return Relation(split=self._rows[near[0]][2] if near else None)

    def add(self, image: Fingerprint, file_name: str, caption: str, split: Split) -> None:
        """Remember a row that is kept."""
        index = len(self._rows)
        if index == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.empty_like(self._hashes)])
            self._thumbnails = np.concatenate([self._thumbnails, np.empty_like(self._thumbnails)])
        self._hashes[index] = image.perceptual
        self._thumbnails[index] = image.thumbnail
        self._rows.append((file_name, caption, split))
        self._exact.setdefault(image.content, index)
        self._exact.setdefault(image.pixels, index)
        for key in self._keys(image.perceptual):
            self._buckets[key].append(index)

    def _keys(self, perceptual: int) -> list[tuple[int, int]]:
        return [(low, (perceptual >> low) & mask) for low, mask in self._bands]

    def _near(self, image: Fingerprint) -> list[int]:
        """Positions of the rows that this image nearly repeats, the earliest first."""
        buckets = [self._buckets[key] for key in self._keys(image.perceptual) if key in self._buckets]
        if not buckets:
            return []
        proposed = np.unique(np.concatenate([np.asarray(bucket, dtype=np.int64) for bucket in buckets]))
        distance = np.bitwise_count(self._hashes[proposed] ^ np.uint64(image.perceptual))
        proposed = proposed[distance <= self._near_bits]
        difference = np.abs(self._thumbnails[proposed].astype(np.int16) - image.thumbnail.astype(np.int16))
        return proposed[difference.mean(axis=1) <= NEAR_THUMBNAIL].tolist()
