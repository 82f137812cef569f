"""What the prepare stage writes, of as many rows as a test wants, with captions of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from tests.source_folders import caption_of, encoded, picture
from twinflow_core.data.shards import Row, ShardWriter
from twinflow_core.image_size import ImageSize

Captions = Callable[[int], str]
Sizes = Callable[[int], ImageSize]
HELD_OUT, A_SHARD = 3, 8


def square(number: int) -> ImageSize:
    """The size of every image, unless a test wants others."""
    return ImageSize(32, 32)


def write_prepared(
    root: Path,
    numbers: list[int],
    caption: Captions = caption_of,
    a_shard: int = A_SHARD,
    size: Sizes = square,
) -> None:
    """Rows of these numbers in data/prepared, and HELD_OUT others in the validation split."""
    folder = root / "data/prepared"
    for path in folder.glob("*"):
        path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    with ShardWriter(folder, "train", a_shard) as train:
        for number in numbers:
            train.write(_row(number, caption(number), size(number)))
    with ShardWriter(folder, "validation", a_shard) as validation:
        for number in range(900, 900 + HELD_OUT):
            validation.write(_row(number, caption(number), size(number)))


def _row(number: int, caption: str, size: ImageSize) -> Row:
    content = encoded(picture(number, size))
    return Row(f"{number}.png", content, caption, *size, hashlib.sha256(content).hexdigest(), "")
