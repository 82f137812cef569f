"""Finding images that were seen before: the same file, the same pixels, or nearly the same picture.

A near duplicate has to pass two tests, because each alone is wrong somewhere. The 64-bit perceptual hash
(imagehash's pHash) of flat drawings collides between honestly different scenes; a small thumbnail's mean
difference alone would need a comparison with every image. So the hash proposes, found through an index of its
bands, and the thumbnail decides. Memory holds hashes alone; thumbnails and names lie on disk.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from twinflow_core.data.decode import Pixels
from twinflow_core.data.hash_index import HASH_BITS, Band, HashIndex
from twinflow_core.data.kept_rows import KeptRow, KeptRows, digest
from twinflow_core.data.rejections import Reason, Rejection
from twinflow_core.data.splits import Split

THUMBNAIL_SIDE = 8
THUMBNAIL_BYTES = THUMBNAIL_SIDE**2 * 3
# Mean absolute difference of two thumbnails in grey levels of 255. Measured on the bundled 32x32 shapes,
# where coding errors weigh most: 99 % of the copies saved as JPEG at quality 90 lie below 2.7, half of those
# at quality 75 below 2.3 and half of those resized by a tenth below 1.6. With it and a Hamming distance of 4,
# 0.1 % of the bundled set is taken for a near duplicate.
NEAR_THUMBNAIL = 3.0


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
    """The images kept so far. Use as a context manager, or let it go.

    Memory a row: 24 bytes of hashes, and 4 for each of 2 + `near_bits` + 1 bands, 52 in all for 4 bits, 64
    at most while its arrays grow. All else lies on disk, some 300 bytes and the file name a row.

    Args:
        near_bits: the Hamming distance of two perceptual hashes up to which their thumbnails are compared.
        scratch: folder whose disk is used; None for the system's temporary one.
    """

    def __init__(self, near_bits: int, scratch: Path | None = None) -> None:
        self._near_bits = near_bits
        # Two hashes that differ in at most n bits agree wholly in one of n + 1 bands.
        edges = np.linspace(0, HASH_BITS, near_bits + 2).astype(int).tolist()
        self._perceptual = HashIndex([Band(low, high) for low, high in pairwise(edges)])
        self._content = HashIndex([Band(0, HASH_BITS)])
        self._pixels = HashIndex([Band(0, HASH_BITS)])
        self._rows = KeptRows(THUMBNAIL_BYTES, scratch)

    def __enter__(self) -> DuplicateIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.close()

    def bytes_held(self) -> int:
        """Memory that grows with the rows."""
        return sum(index.bytes_held() for index in (self._perceptual, self._content, self._pixels))

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
        own_name, own_caption = digest(file_name), digest(caption)
        same = self._same(image)
        if same is not None and self._rows[same].name != own_name:
            return Relation(Rejection(Reason.EXACT_DUPLICATE, f"of {self._rows.file_name(same)}"))
        split: Split | None = None
        for number in self._perceptual.near(image.perceptual, self._near_bits).tolist():
            other = self._rows[number]
            difference = np.abs(other.thumbnail.astype(np.int16) - image.thumbnail.astype(np.int16))
            if difference.mean() > NEAR_THUMBNAIL:
                continue
            if other.caption == own_caption:
                if other.name == own_name:
                    return Relation(Rejection(Reason.EXACT_DUPLICATE, "listed twice with one caption"))
                return Relation(Rejection(Reason.NEAR_DUPLICATE, f"of {self._rows.file_name(number)}"))
            split = split or other.split
        return Relation(split=split)

    def add(self, image: Fingerprint, file_name: str, caption: str, split: Split) -> None:
        """Remember a row that is kept."""
        self._perceptual.add(image.perceptual)
        self._content.add(_start(bytes.fromhex(image.content)))
        self._pixels.add(_start(image.pixels))
        row = KeptRow(
            bytes.fromhex(image.content),
            image.pixels,
            image.thumbnail,
            digest(file_name),
            digest(caption),
            split,
        )
        self._rows.add(row, file_name)

    def _same(self, image: Fingerprint) -> int | None:
        """The first row with the same bytes, else the first with the same pixels."""
        content = bytes.fromhex(image.content)
        for number in self._content.near(_start(content), 0).tolist():
            if self._rows[number].content == content:
                return int(number)
        for number in self._pixels.near(_start(image.pixels), 0).tolist():
            if self._rows[number].pixels == image.pixels:
                return int(number)
        return None


def _start(sha256: bytes) -> int:
    return int.from_bytes(sha256[: HASH_BITS // 8], "little")
