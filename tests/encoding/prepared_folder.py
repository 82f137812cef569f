"""What the prepare stage writes, of as many rows as a test wants, with captions of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from tests.source_folders import caption_of, encoded, picture
from twinflow_core.data.shards import Row, ShardWriter

Captions = Callable[[int], str]
HELD_OUT, A_SHARD = 3, 8


def write_prepared(
    root: Path, numbers: list[int], caption: Captions = caption_of, a_shard: int = A_SHARD
) -> None:
    """Rows of these numbers in data/prepared, and HELD_OUT others in the validation split."""
    folder = root / "data/prepared"
    for path in folder.glob("*"):
        path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    with ShardWriter(folder, "train", a_shard) as train:
        for number in numbers:
            train.write(_row(number, caption(number)))
    with ShardWriter(folder, "validation", a_shard) as validation:
        for number in range(900, 900 + HELD_OUT):
            validation.write(_row(number, caption(number)))


def _row(number: int, caption: str) -> Row:
    content = encoded(picture(number, (32, 32)))
    return Row(f"{number}.png", content, caption, 32, 32, hashlib.sha256(content).hexdigest(), "")
