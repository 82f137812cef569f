"""The SHA-256 and size of a file: the identity of every blob."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class FileDigest:
    """A file's content as (sha256 in lower-case hex, size in bytes)."""

    sha256: str
    size: int


def digest_file(path: Path) -> FileDigest:
    """Read a file once and give its digest; memory stays constant."""
    state = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            state.update(chunk)
            size += len(chunk)
    return FileDigest(state.hexdigest(), size)
