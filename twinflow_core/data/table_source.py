"""The samples of a parquet file or of an Arrow file as Hugging Face's `save_to_disk` writes it.

The image column holds encoded bytes, either plain or as `{"bytes": .., "path": ..}`; the caption column holds
text; columns of numbers, texts and lists of them are kept as metadata, all others are passed over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from twinflow_core.data.rejections import Reason, Rejection
from twinflow_core.data.samples import (
    CAPTION_NAMES,
    IMAGE_NAMES,
    Columns,
    Sample,
    checked_sample,
    most_image_bytes,
)
from twinflow_core.errors import TwinflowError

_ROWS_AT_ONCE = 64
_READ_BYTES = 2**20


def read_table_file(path: Path, name: str, columns: Columns, max_pixels: int) -> Iterator[Sample]:
    """The samples of one file in its order, a few rows in memory at a time (of Arrow, a record batch).

    Args:
        path: `.parquet` or `.arrow`.
        name: what its rows are named after, with `#` and the row's number.
        columns: which hold image and caption.
        max_pixels: bounds the bytes of an image.

    Raises:
        TwinflowError: the file is damaged, or lacks a column of that name and of a type that will do.
    """
    most, number = most_image_bytes(max_pixels), 0
    with _explained(path):
        batches = _parquet_batches(path) if path.suffix == ".parquet" else _arrow_batches(path)
        schema = next(batches)
        assert isinstance(schema, pa.Schema)
        image, caption = _chosen(path, schema, columns)
        kept = [each.name for each in schema if each.name not in (image, caption) and _is_plain(each.type)]
        for batch in batches:
            assert isinstance(batch, pa.RecordBatch)
            for row in batch.select([image, caption, *kept]).to_pylist():
                content, text = row.pop(image), row.pop(caption)
                sample = _sample(f"{name}#{number}", content, text, row, most)
                number += 1
                yield sample


def _sample(name: str, content: Any, text: object, row: dict[str, Any], most: int) -> Sample:
    path = None
    if isinstance(content, dict):
        content, path = content.get("bytes"), content.get("path")
    rejection = None
    if content is None:
        detail = f"only its path is here: {path}" if path else "the image is null"
        rejection = Rejection(Reason.MISSING_FILE, detail)
    elif len(content) > most:
        rejection = Rejection(Reason.TOO_MANY_BYTES, f"{len(content)}, at most {most}")
    metadata = {key: _finite(value) for key, value in row.items() if value is not None}
    return checked_sample(name, content, text, metadata, rejection)


def _parquet_batches(path: Path) -> Iterator[pa.Schema | pa.RecordBatch]:
    with pq.ParquetFile(path, buffer_size=_READ_BYTES, pre_buffer=False) as file:
        yield file.schema_arrow
        yield from file.iter_batches(_ROWS_AT_ONCE, use_threads=False)


def _arrow_batches(path: Path) -> Iterator[pa.Schema | pa.RecordBatch]:
    """The stream format, which `save_to_disk` writes, or the file format."""
    with pa.OSFile(str(path)) as file:
        stream = file.read(6) != b"ARROW1"
        file.seek(0)
        if stream:
            with pa.ipc.open_stream(file) as reader:
                yield reader.schema
                yield from (slice_ for batch in reader for slice_ in _slices(batch))
            return
        with pa.ipc.open_file(file) as reader:
            yield reader.schema
            for number in range(reader.num_record_batches):
                yield from _slices(reader.get_batch(number))


def _slices(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    yield from (batch.slice(first, _ROWS_AT_ONCE) for first in range(0, len(batch), _ROWS_AT_ONCE))


def _chosen(path: Path, schema: pa.Schema, columns: Columns) -> tuple[str, str]:
    image = _find(path, schema, "image", columns.image, IMAGE_NAMES)
    caption = _find(path, schema, "caption", columns.caption, CAPTION_NAMES)
    kind = schema.field(image).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise _unfit(path, "image", image, schema, "encoded image files, as bytes")
    if not _is_string(schema.field(caption).type):
        raise _unfit(path, "caption", caption, schema, "one text a row")
    return image, caption


def _find(path: Path, schema: pa.Schema, role: str, wanted: str | None, usual: tuple[str, ...]) -> str:
    names = [wanted] if wanted else usual
    present = [name for name in names if schema.names.count(name) == 1]
    if not present:
        raise TwinflowError(
            f"No column holds the {role}: there is none named {', '.join(names)}.",
            where=f"{path}: {', '.join(schema.names)}",
            fix=f"Set data.{role}_column in params.yaml to the right one.",
        )
    return present[0]


def _unfit(path: Path, role: str, name: str, schema: pa.Schema, wanted: str) -> TwinflowError:
    return TwinflowError(
        f"The {role} column `{name}` holds {schema.field(name).type}; it must hold {wanted}.",
        where=str(path),
        fix=f"Set data.{role}_column in params.yaml to another, or write the column anew.",
    )


def _is_string(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_plain(kind: pa.DataType) -> bool:
    """Whether values of this type can stand in a JSON object."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_plain(kind.value_type)
    if pa.types.is_struct(kind):
        return all(_is_plain(field.type) for field in kind)
    return _is_string(kind) or any(
        test(kind) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    )


def _finite(value: Any) -> Any:
    """The value with null in place of every number that JSON cannot hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_finite(each) for each in value]
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return value


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise TwinflowError(
            f"A data file is damaged: {' '.join(str(error).split())[:300]}",
            where=str(path),
            fix="Fetch or write it again.",
        ) from None
