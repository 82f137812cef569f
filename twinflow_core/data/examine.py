"""One piece of the raw data in, one part file out: every row checked and fingerprinted, nothing compared yet.

A pure function of its task and the files it names, so pieces may be worked on in any order, by any process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from twinflow_core.data.checks import check_image
from twinflow_core.data.duplicates import THUMBNAIL_BYTES, Fingerprint, fingerprint
from twinflow_core.data.rejections import Reason, Rejection
from twinflow_core.data.samples import Columns, Sample, most_image_bytes
from twinflow_core.data.shards import SCHEMA, Row
from twinflow_core.data.source_files import TAR
from twinflow_core.data.sources import Pair
from twinflow_core.data.table_source import read_table_file
from twinflow_core.data.tar_source import read_tar

# A row's columns, its fingerprint, and why it is rejected; a rejected row has its name alone.
_PART = pa.schema(
    [
        *(field.with_nullable(True) for field in SCHEMA),
        pa.field("pixels", pa.binary(hashlib.sha256().digest_size)),
        pa.field("perceptual", pa.uint64()),
        pa.field("thumbnail", pa.binary(THUMBNAIL_BYTES)),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
    ]
)
_ROWS_AT_ONCE = 64
_GROUP_BYTES = 16 * 2**20


@dataclass(frozen=True)
class ExamineTask:
    """One piece of the raw data.

    Attributes:
        folder: data/raw.
        piece: rows of loose images, or the name of a packed file.
        part: the file to write.
        columns: where packed files keep image and caption.
        min_side: the least width and height allowed.
        max_pixels: the most pixels allowed.
    """

    folder: Path
    piece: tuple[Pair, ...] | str
    part: Path
    columns: Columns
    min_side: int
    max_pixels: int


@dataclass(frozen=True, slots=True)
class Examined:
    """A row that can be used, as far as it alone shows."""

    row: Row
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot be used."""

    file_name: str
    rejection: Rejection


def examine(task: ExamineTask) -> Path:
    """Check and fingerprint every row of a piece.

    Returns:
        The part file, for `read_part`.

    Raises:
        TwinflowError: a packed file is damaged, or lacks its columns.
    """
    documents = (_document(_examined(sample, task)) for sample in _samples(task))
    with pq.ParquetWriter(task.part, _PART, compression="none", use_dictionary=False) as writer:
        group: list[dict[str, Any]] = []
        size = 0
        for document in documents:
            group.append(document)
            size += len(document.get("image") or b"")
            if size >= _GROUP_BYTES:
                writer.write_table(pa.Table.from_pylist(group, schema=_PART))
                group, size = [], 0
        writer.write_table(pa.Table.from_pylist(group, schema=_PART))
    return task.part


def read_part(part: Path) -> Iterator[Examined | Rejected]:
    """The rows of a part file in the piece's order, a row group in memory at a time."""
    with pq.ParquetFile(part) as file:
        for number in range(file.num_row_groups):
            for batch in file.read_row_group(number).to_batches(max_chunksize=_ROWS_AT_ONCE):
                yield from map(_from_document, batch.to_pylist())


def _samples(task: ExamineTask) -> Iterator[Sample]:
    if not isinstance(task.piece, str):
        return (_read(pair, task) for pair in task.piece)
    path = task.folder / task.piece
    reader = read_tar if path.suffix == TAR else read_table_file
    return reader(path, task.piece, task.columns, task.max_pixels)


def _read(pair: Pair, task: ExamineTask) -> Sample:
    rejection, content = pair.rejection, None
    if rejection is None:
        path, most = task.folder / pair.file_name, most_image_bytes(task.max_pixels)
        try:
            size = path.stat().st_size
            if size > most:
                rejection = Rejection(Reason.TOO_MANY_BYTES, f"{size}, at most {most}")
            else:
                content = path.read_bytes()
        except OSError as error:
            rejection = Rejection(Reason.DAMAGED, f"cannot be read: {error.strerror}")
    return Sample(pair.file_name, content, pair.caption, pair.metadata, rejection)


def _examined(sample: Sample, task: ExamineTask) -> Examined | Rejected:
    if sample.rejection or sample.image is None:
        return Rejected(sample.file_name, sample.rejection or Rejection(Reason.MISSING_FILE))
    image = check_image(sample.image, task.min_side, task.max_pixels)
    if isinstance(image, Rejection):
        return Rejected(sample.file_name, image)
    print_ = fingerprint(sample.image, image)
    height, width = image.shape[:2]
    row = Row(sample.file_name, sample.image, sample.caption, width, height, print_.content, sample.metadata)
    return Examined(row, print_)


def _document(found: Examined | Rejected) -> dict[str, Any]:
    if isinstance(found, Rejected):
        reason = str(found.rejection.reason)
        return {"file_name": found.file_name, "reason": reason, "detail": found.rejection.detail}
    print_ = found.fingerprint
    return asdict(found.row) | {
        "pixels": print_.pixels,
        "perceptual": print_.perceptual,
        "thumbnail": print_.thumbnail.tobytes(),
    }


def _from_document(document: dict[str, Any]) -> Examined | Rejected:
    reason, detail = document.pop("reason"), document.pop("detail")
    if reason is not None:
        return Rejected(document["file_name"], Rejection(Reason(reason), detail))
    thumbnail = np.frombuffer(document.pop("thumbnail"), np.uint8)
    print_ = Fingerprint(document["sha256"], document.pop("pixels"), document.pop("perceptual"), thumbnail)
    return Examined(Row(**document), print_)


def pieces_of(rows: Iterator[Pair], size: int) -> Iterator[tuple[Pair, ...]]:
    """The rows in pieces of one size; the last may be smaller."""
    while piece := tuple(islice(rows, size)):
        yield piece
