"""Evaluated images and their scores as one parquet table: one row an image."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("setting", pa.string()),
        ("task", pa.string()),
        ("slice", pa.string()),
        ("prompt_id", pa.string()),
        ("prompt", pa.string()),
        ("sample", pa.int32()),
        ("correct", pa.float64()),
        ("reason", pa.string()),
        ("image", pa.binary()),
    ]
)


@dataclass(frozen=True)
class Sample:
    """One evaluated image.

    Attributes:
        model: `reference`, `candidate` or `served`.
        setting: `nfe1`, `nfe2`, .. or `many`.
        task: the scorer's task.
        slice: a finer group inside tasks.
        prompt_id: the prompt's place in the evaluation set, stable for one seed.
        prompt: its text.
        sample: which image of the prompt, from 0.
        correct: 1 or 0, NaN where the scorer does not judge single images.
        reason: why it is wrong, "" if it is right or not judged.
        image: PNG bytes.
    """

    model: str
    setting: str
    task: str
    slice: str
    prompt_id: str
    prompt: str
    sample: int
    correct: float
    reason: str
    image: bytes

    @property
    def pixels(self) -> np.ndarray:
        """uint8 [H, W, 3]."""
        return np.asarray(Image.open(io.BytesIO(self.image)).convert("RGB"))


def png_bytes(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as PNG, without metadata."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def samples_at(folder: Path, size: str) -> Path:
    """Where an evaluation keeps its images of another size than the square, `WIDTHxHEIGHT`."""
    return folder / f"samples_{size}.parquet"


def write_samples(samples: Iterable[Sample], path: Path) -> None:
    """Write the table; the same samples give the same bytes."""
    rows = [asdict(sample) for sample in samples]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    pq.write_table(table, path, compression="zstd", store_schema=False)


def read_samples(path: Path) -> list[Sample]:
    """Read the table back, in its order."""
    names = [field.name for field in fields(Sample)]
    return [Sample(**row) for row in pq.read_table(path, columns=names).to_pylist()]
