"""Folders as a user would bring them: pictures that differ honestly, captions in each of the three forms."""

from __future__ import annotations

import csv
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

CaptionForm = Literal["jsonl", "csv", "txt"]
CAPTION_FORMS: tuple[CaptionForm, ...] = ("jsonl", "csv", "txt")


def picture(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """A smooth picture of random colours, `size` is (width, height); another seed gives a different one."""
    cells = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """The image as a file's bytes."""
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def caption_of(index: int) -> str:
    """Captions repeat every seven images, so that equal captions meet."""
    return f"a swirl of kind {index % 7}"


def write_source(folder: Path, count: int, form: CaptionForm = "jsonl") -> Path:
    """A folder of `count` PNGs, `pictures/0000.png` ..., captioned in one of the three forms."""
    (folder / "pictures").mkdir(parents=True)
    names = [f"pictures/{index:04d}.png" for index in range(count)]
    for index, name in enumerate(names):
        (folder / name).write_bytes(encoded(picture(index)))
        if form == "txt":
            (folder / name).with_suffix(".txt").write_text(caption_of(index) + "\n", encoding="utf-8")
    rows = [{"file_name": name, "text": caption_of(index)} for index, name in enumerate(names)]
    if form == "jsonl":
        write_jsonl(folder, rows)
    elif form == "csv":
        with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["file_name", "text"])
            writer.writeheader()
            writer.writerows(rows)
    return folder


def write_jsonl(folder: Path, rows: list[dict[str, Any]]) -> None:
    """`metadata.jsonl` with these rows."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(lines, encoding="utf-8")


def decompression_bomb(width: int, height: int, rows: int) -> bytes:
    """A one-bit PNG that declares this size, with so many rows of zeros: 30 kilobytes for 200 megapixels."""
    row = bytes(1 + (width + 7) // 8) if rows else b""
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
