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

import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from twinflow_core.data.metadata_files import METADATA_NAMES, read_metadata
from twinflow_core.data.rejections import Reason, Rejection
from twinflow_core.errors import TwinflowError

SUPPORTED_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})
# Pictures that are not read, listed so that each is rejected by name instead of passed over in silence.
OTHER_PICTURE_SUFFIXES = frozenset(
    {".heic", ".heif", ".jxl", ".jp2", ".svg", ".psd", ".tga", ".exr", ".hdr", ".ico", ".eps"}
    | {".cr2", ".nef", ".arw", ".dng", ".raw"}
)


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


@dataclass
class SourceFiles:
    """The files of a folder that matter here: images, metadata files, captions beside images; each sorted."""

    images: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)

    def all_names(self) -> list[str]:
        """Every path of the three lists, sorted."""
        return sorted([*self.images, *self.metadata, *self.captions])


def list_files(folder: Path) -> SourceFiles:
    """What a source folder holds, nested folders included.

    Args:
        folder: the source folder.

    Raises:
        TwinflowError: the folder is missing, a folder holds both metadata files, a link leads out of the
            folder, or a file's name is not valid UTF-8.
    """
    if not folder.is_dir():
        raise TwinflowError(
            "The data folder is missing." if not folder.exists() else "The data source is not a folder.",
            where=str(folder),
            fix="Set data.source in params.yaml to a folder of images with captions.",
        )
    files, texts = SourceFiles(), []
    for name in _walk(folder):
        path = PurePosixPath(name)
        if path.name in METADATA_NAMES:
            files.metadata.append(name)
        elif path.suffix.lower() in SUPPORTED_SUFFIXES | OTHER_PICTURE_SUFFIXES:
            files.images.append(name)
        elif path.suffix == ".txt":
            texts.append(name)
    beside = {_caption_name(name) for name in files.images}
    files.captions = [name for name in texts if name in beside]
    _refuse_two_metadata_files(folder, files.metadata)
    return files


def find_pairs(folder: Path) -> list[Pair]:
    """The rows of a source folder, sorted by file name (rows of one image keep their order).

    Args:
        folder: the source folder.

    Returns:
        One pair for each metadata row and for each image that no row names. A row whose image is missing, an
        image without a caption and a picture in a format that is not read are pairs with a `rejection`.

    Raises:
        TwinflowError: as `list_files`; the folder holds no rows; a metadata file cannot be read, has a
            malformed line, or names a path outside the folder.
    """
    files = list_files(folder)
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
            "metadata.jsonl, metadata.csv, or a .txt beside each image.",
        )
    return [pair for name in sorted(rows) for pair in rows[name]]


def _walk(folder: Path) -> list[str]:
    """Every regular file's path relative to the folder, sorted; links to folders are not followed."""
    root = folder.resolve()
    names = []
    for current, folders, file_names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in [*folders, *file_names]:
            path = Path(current, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise TwinflowError(
                    "A link leads out of the data folder.",
                    where=os.fsencode(path).decode(errors="replace"),
                    fix="Put the file itself there in place of the link.",
                )
        for name in file_names:
            path = Path(current, name)
            if not name.startswith(".") and path.is_file():
                names.append(_as_text(path.relative_to(root)))
    return sorted(names)


def _as_text(path: Path) -> str:
    name = path.as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        raise TwinflowError(
            "A file's name is not valid UTF-8.",
            where=os.fsencode(path).decode(errors="replace"),
            fix="Rename the file.",
        ) from None
    return name


def _refuse_two_metadata_files(folder: Path, metadata: list[str]) -> None:
    holders = [PurePosixPath(name).parent for name in metadata]
    for holder in holders:
        if holders.count(holder) > 1:
            raise TwinflowError(
                "A folder holds both metadata.jsonl and metadata.csv.",
                where=str(folder / holder),
                fix="Keep the one that is right and remove the other.",
            )


def _caption_name(image_name: str) -> str:
    return str(PurePosixPath(image_name).with_suffix(".txt"))


def _read_caption(folder: Path, image_name: str, beside: set[str]) -> tuple[str, Rejection | None]:
    name = _caption_name(image_name)
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
