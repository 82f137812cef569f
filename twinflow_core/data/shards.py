"""Prepared rows as parquet shards: written and read as a stream, the same bytes for the same rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from twinflow_core.data.splits import Split
from twinflow_core.errors import TwinflowError
from twinflow_core.image_size import ImageSize

SCHEMA = pa.schema(
    [
        pa.field("file_name", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("metadata", pa.string(), nullable=False),
    ]
)
# Encoded images do not shrink further, and a dictionary of them would only double the memory.
_COMPRESSION = {name: "none" if name == "image" else "zstd" for name in SCHEMA.names}
_DICTIONARY = ["caption"]
_GROUP_BYTES = 16 * 2**20
_CONVERTED_ROWS = 64


@dataclass(frozen=True, slots=True)
class Row:
    """One usable image with its caption.

    Args:
        file_name: path inside the source folder.
        image: the encoded bytes as they came.
        caption: never empty.
        width: of the decoded, upright image.
        height: of the decoded, upright image.
        sha256: of `image`, in hexadecimal.
        metadata: the row's other columns as a JSON object, or "".
    """

    file_name: str
    image: bytes
    caption: str
    width: int
    height: int
    sha256: str
    metadata: str


class ShardWriter:
    """Writes one split as `<split>-00000.parquet`, `<split>-00001.parquet`, ... Use as a context manager.

    Holds at most one row group in memory: 16 MiB or `rows_per_shard` rows, whichever comes first.

    Args:
        folder: where the shards go.
        split: the split they belong to.
        rows_per_shard: how many rows a shard holds.
    """

    def __init__(self, folder: Path, split: Split, rows_per_shard: int) -> None:
        self._folder = folder
        self._split = split
        self._rows_per_shard = rows_per_shard
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self._writer: pq.ParquetWriter | None = None
        self.count = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._close_shard()

    def write(self, row: Row) -> None:
        """Append a row."""
        self._rows.append(asdict(row))
        self._bytes += len(row.image) + len(row.caption) + len(row.metadata)
        self.count += 1
        shard_is_full = self.count % self._rows_per_shard == 0
        if shard_is_full or self._bytes >= _GROUP_BYTES:
            self._flush()
        if shard_is_full:
            self._close_shard()

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            number = (self.count - 1) // self._rows_per_shard
            self._writer = pq.ParquetWriter(
                self._folder / f"{self._split}-{number:05d}.parquet",
                SCHEMA,
                compression=_COMPRESSION,
                use_dictionary=_DICTIONARY,
            )
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=SCHEMA))
        self._rows, self._bytes = [], 0

    def _close_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def count_rows(folder: Path, split: Split) -> int:
    """How many rows a split holds, from the shards' footers alone.

    Raises:
        TwinflowError: the split has no shard, or one is damaged.
    """
    total = 0
    for path in shard_paths(folder, split):
        with _opened(path) as shard:
            total += shard.metadata.num_rows
    return total


def read_rows(folder: Path, split: Split) -> Iterator[Row]:
    """The rows of a split in the order they were written, one row group in memory at a time.

    Args:
        folder: what `prepare` made.
        split: `train` or `validation`.

    Raises:
        TwinflowError: the split has no shard, or one is damaged.
    """
    for path in shard_paths(folder, split):
        with _opened(path) as shard:
            try:
                for group in range(shard.num_row_groups):
                    yield from _rows(shard.read_row_group(group, columns=SCHEMA.names))
            except (pa.ArrowException, OSError) as error:
                raise _damaged(path, error) from None


def read_captions(path: Path) -> tuple[list[str], list[str]]:
    """The captions and the images' SHA-256 of one shard, row by row; no image is read.

    Raises:
        TwinflowError: the shard is damaged.
    """
    table = _columns(path, ["caption", "sha256"])
    return table["caption"].to_pylist(), table["sha256"].to_pylist()


def read_sizes(path: Path) -> list[ImageSize]:
    """The sizes of one shard's upright images, row by row; no image is read.

    Raises:
        TwinflowError: the shard is damaged.
    """
    table = _columns(path, ["width", "height"])
    return list(map(ImageSize, table["width"].to_pylist(), table["height"].to_pylist()))


def read_images(path: Path, rows: Collection[int]) -> Iterator[tuple[int, bytes]]:
    """(row, encoded bytes) of some rows of one shard in their order; groups without one are passed over.

    Raises:
        TwinflowError: the shard is damaged.
    """
    wanted, first = set(rows), 0
    with _opened(path) as shard:
        for group in range(shard.num_row_groups):
            last = first + shard.metadata.row_group(group).num_rows
            chosen = [row for row in range(first, last) if row in wanted]
            if chosen:
                try:
                    images = shard.read_row_group(group, columns=["image"])["image"]
                except (pa.ArrowException, OSError) as error:
                    raise _damaged(path, error) from None
                for row in chosen:
                    yield row, images[row - first].as_py()
            first = last


def _rows(table: pa.Table) -> Iterator[Row]:
    for batch in table.to_batches(max_chunksize=_CONVERTED_ROWS):
        yield from (Row(**document) for document in batch.to_pylist())


def shard_paths(folder: Path, split: Split) -> list[Path]:
    """The shards of a split in their order.

    Raises:
        TwinflowError: there are none.
    """
    paths = sorted(folder.glob(f"{split}-*.parquet"))
    if not paths:
        raise TwinflowError(
            f"The prepared data has no {split} rows.", where=str(folder), fix="Run the stage `prepare` again."
        )
    return paths


def _columns(path: Path, names: list[str]) -> pa.Table:
    with _opened(path) as shard:
        try:
            return shard.read(columns=names)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from None


def _opened(path: Path) -> pq.ParquetFile:
    try:
        shard = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None
    missing = [name for name in SCHEMA.names if name not in shard.schema_arrow.names]
    if missing:
        shard.close()
        raise _damaged(path, f"no column {', '.join(missing)}")
    return shard


def _damaged(path: Path, error: Exception | str) -> TwinflowError:
    return TwinflowError(
        "A shard of the prepared data is damaged.",
        where=f"{path}: {error}",
        fix="Run the stage `prepare` again.",
    )
