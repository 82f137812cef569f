"""The images of a folder and their captions, in one fixed order, before anything is decoded.

Two conventions, which may be mixed in one folder:

- `metadata.jsonl` or `metadata.csv` (Hugging Face's imagefolder): `file_name`, relative to the metadata
  file's own folder, and `text`; every other column is kept as the row's metadata. May lie in any nested
  folder.
- a `.txt` file beside the image, with the image's name, that holds its caption.

An image that a metadata row names takes its caption from there alone. Hidden files and folders are passed
over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from pathlib import Path, PurePosixPath

from twinflow_core.data.metadata_files import read_metadata
from twinflow_core.data.rejections import Reason, Rejection
from twinflow_core.data.sorted_rows import SortedRows
from twinflow_core.data.source_files import SUPPORTED_SUFFIXES, SourceFiles, caption_name, list_files
from twinflow_core.errors import TwinflowError


@dataclass(frozen=True, slots=True)
class Pair:
    """One row: an image of the source and its caption.

    Args:
        file_name: the image's path inside the folder, with `/` between the parts.
        caption: the caption with its outer and repeated white space removed.
        metadata: the row's other columns as a JSON object with sorted keys, or "".
        rejection: why the row is unusable, where that shows without opening the image.
    """

    file_name: str
    caption: str
    metadata: str = ""
    rejection: Rejection | None = None


class Pairs:
    """The rows of a source folder, sorted by file name (rows of one image keep their order).

    One for each metadata row and for each image that no row names. A row whose image is missing, an image without a
    caption and a picture in a format that is not read are pairs with a `rejection`. What metadata files say is read
    at once and kept on disk, other captions are read as the rows are iterated.
    """

    def __init__(self, folder: Path, files: SourceFiles) -> None:
        self._folder = folder
        self._files = files
        self._named = SortedRows()
        for metadata_name in files.metadata:
            for row in read_metadata(folder, metadata_name):
                rejection = row.rejection
                if PurePosixPath(row.file_name).suffix.lower() not in SUPPORTED_SUFFIXES:
                    rejection = _unsupported(row.file_name)
                elif row.file_name not in files.images:
                    rejection = Rejection(Reason.MISSING_FILE, f"named in {metadata_name}")
                self._named.add(
                    row.file_name, _written(_pair(row.file_name, row.text, row.metadata, rejection))
                )
        self._unnamed = sum(name not in self._named for name in files.images.names())

    def __len__(self) -> int:
        return len(self._named) + self._unnamed

    def __iter__(self) -> Iterator[Pair]:
        named = (_read(name, text) for name, text in self._named)
        unnamed = (self._beside(name) for name in self._files.images.names() if name not in self._named)
        return merge(named, unnamed, key=lambda pair: pair.file_name)

    def _beside(self, name: str) -> Pair:
        text, rejection = _read_caption(self._folder, name, self._files.captions)
        if PurePosixPath(name).suffix.lower() not in SUPPORTED_SUFFIXES:
            rejection = _unsupported(name)
        return _pair(name, text, "", rejection)


def find_pairs(folder: Path, files: SourceFiles | None = None) -> Pairs:
    """The rows of a source folder.

    Args:
        folder: the source folder.
        files: what was listed there; None lists all.

    Raises:
        TwinflowError: as `list_files`; the folder holds no rows; a metadata file cannot be read, has a
            malformed line, or names a path outside the folder.
    """
    pairs = Pairs(folder, list_files(folder) if files is None else files)
    if not len(pairs):
        raise TwinflowError(
            "The data folder holds no images.",
            where=str(folder),
            fix=f"Put images ({', '.join(sorted(SUPPORTED_SUFFIXES))}) with captions there: "
            "metadata.jsonl, metadata.csv, or a .txt beside each image; or packed files (.tar, .parquet, .arrow).",
        )
    return pairs


def _read_caption(folder: Path, image_name: str, beside: SortedRows) -> tuple[str, Rejection | None]:
    name = caption_name(image_name)
    if name not in beside:
        return "", None
    try:
        return (folder / name).read_text(encoding="utf-8-sig"), None
    except UnicodeDecodeError:
        return "", Rejection(Reason.UNREADABLE_CAPTION, f"{name} is not UTF-8 text")
    except OSError as error:
        return "", Rejection(Reason.UNREADABLE_CAPTION, f"{name}: {error.strerror}")


def _unsupported(name: str) -> Rejection:
    return Rejection(Reason.UNSUPPORTED_FORMAT, PurePosixPath(name).suffix or "no suffix")


def _pair(name: str, text: str, metadata: str, rejection: Rejection | None) -> Pair:
    caption = " ".join(text.split())
    if not caption and rejection is None:
        rejection = Rejection(Reason.NO_CAPTION)
    return Pair(name, caption, metadata, rejection)


def _written(pair: Pair) -> str:
    """All of a pair but its name."""
    rejection = pair.rejection and (pair.rejection.reason, pair.rejection.detail)
    return json.dumps([pair.caption, pair.metadata, rejection])


def _read(name: str, text: str) -> Pair:
    caption, metadata, rejection = json.loads(text)
    return Pair(name, caption, metadata, rejection and Rejection(Reason(rejection[0]), rejection[1]))
