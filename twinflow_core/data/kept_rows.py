"""What is known of the rows kept so far, on disk: it is needed only where hashes have proposed a row."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twinflow_core.data.splits import SPLITS, Split

DIGEST_BYTES = 16


def digest(text: str) -> bytes:
    """16 bytes by which texts are compared."""
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


@dataclass(frozen=True, slots=True)
class KeptRow:
    """One kept row.

    Args:
        content: SHA-256 of the encoded bytes.
        pixels: SHA-256 of the decoded pixels and their shape.
        thumbnail: uint8 [192].
        name: digest of its file name.
        caption: digest of its caption.
        split: the split it went to.
    """

    content: bytes
    pixels: bytes
    thumbnail: NDArray[np.uint8]
    name: bytes
    caption: bytes
    split: Split


class KeptRows:
    """Rows by their numbers, in files without a name that vanish with this object.

    Args:
        thumbnail_bytes: size of a thumbnail.
        scratch: folder whose disk they lie on; None for the system's temporary one.
    """

    def __init__(self, thumbnail_bytes: int, scratch: Path | None = None) -> None:
        self._fields = np.dtype(
            [
                ("content", np.uint8, 32),
                ("pixels", np.uint8, 32),
                ("thumbnail", np.uint8, thumbnail_bytes),
                ("name", np.uint8, DIGEST_BYTES),
                ("caption", np.uint8, DIGEST_BYTES),
                ("split", np.uint8),
                ("name_start", np.uint64),
                ("name_bytes", np.uint32),
            ]
        )
        self._records = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115
        self._names = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115
        self._names_end = 0

    def close(self) -> None:
        """Let the files go."""
        self._records.close()
        self._names.close()

    def add(self, row: KeptRow, file_name: str) -> None:
        """Append a row."""
        name = file_name.encode()
        record = np.zeros((), self._fields)
        for field in ("content", "pixels", "name", "caption"):
            record[field] = np.frombuffer(getattr(row, field), np.uint8)
        record["thumbnail"] = row.thumbnail
        record["split"] = SPLITS.index(row.split)
        record["name_start"], record["name_bytes"] = self._names_end, len(name)
        self._records.write(record.tobytes())
        self._names.write(name)
        self._names_end += len(name)

    def __getitem__(self, number: int) -> KeptRow:
        record = self._record(number)
        return KeptRow(
            content=record["content"].tobytes(),
            pixels=record["pixels"].tobytes(),
            thumbnail=record["thumbnail"],
            name=record["name"].tobytes(),
            caption=record["caption"].tobytes(),
            split=SPLITS[int(record["split"])],
        )

    def file_name(self, number: int) -> str:
        """A row's file name."""
        record = self._record(number)
        self._names.flush()
        return os.pread(self._names.fileno(), int(record["name_bytes"]), int(record["name_start"])).decode()

    def _record(self, number: int) -> np.void:
        self._records.flush()
        size = self._fields.itemsize
        read = os.pread(self._records.fileno(), size, number * size)
        record: np.void = np.frombuffer(read, self._fields)[0]
        return record
