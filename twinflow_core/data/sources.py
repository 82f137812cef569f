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

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from twinflow_core.data.metadata_files import read_metadata
from twinflow_core.data.rejections import Reason, Rejection
from twinflow_core.data.source_files import SUPPORTED_SUFFIXES, caption_name, list_files
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


def find_pairs(folder: Path, pattern: str | None = None) -> list[Pair]:
    """The rows of a source folder, sorted by file name (rows of one image keep their order).

    Args:
        folder: the source folder.
        pattern: as `source_files.matching`'s.

    Returns:
        One pair for each metadata row and for each image that no row names. A row whose image is missing, an
        image without a caption and a picture in a format that is not read are pairs with a `rejection`.

    Raises:
        TwinflowError: as `list_files`; the folder holds no rows; a metadata file cannot be read, has a
            malformed line, or names a path outside the folder.
    """
    files = list_files(folder, pattern)
    present, beside = set(files.images), set(files.captions)
    rows: dict[str, list[Pair]] = defaultdict(list)
    for metadata_name in files.metadata:
        for row in read_metadata(folder, metadata_name):
            rejection = row.rejection
            if PurePosixPath(row.file_name).suffix.lower() not in SUPPORTED_SUFFIXES:
                rejection = _unsupported(row.file_name)
            elif row.file_name not in present:
                rejection = Rejection(Reason.MISSING_FILE, f"named in {metadata_name}")
            rows[row.file_name].append(_pair(row.file_name, row.text, row.metadata, rejection))
    for name in files.images:
        if name in rows:
            continue
        text, rejection = _read_caption(folder, name, beside)
        if PurePosixPath(name).suffix.lower() not in SUPPORTED_SUFFIXES:
            rejection = _unsupported(name)
        rows[name].append(_pair(name, text, "", rejection))
    if not rows:
        raise TwinflowError(
            "The data folder holds no images.",
            where=str(folder),
            fix=f"Put images ({', '.join(sorted(SUPPORTED_SUFFIXES))}) with captions there: "
            "metadata.jsonl, metadata.csv, or a .txt beside each image; or packed files (.tar, .parquet, .arrow).",
        )
    return [pair for name in sorted(rows) for pair in rows[name]]


def _read_caption(folder: Path, image_name: str, beside: set[str]) -> tuple[str, Rejection | None]:
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
