"""Which files of a source matter, told by their names alone: the same for a folder and for a bucket.

A source is of one kind: loose images with captions, or packed files (WebDataset tars, parquet, Arrow).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from heapq import merge
from itertools import product
from pathlib import Path, PurePosixPath

from twinflow_core.data.metadata_files import METADATA_NAMES
from twinflow_core.data.sorted_rows import SortedRows
from twinflow_core.errors import TwinflowError

SUPPORTED_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})
# Pictures that are not read, listed so that each is rejected by name instead of passed over in silence.
OTHER_PICTURE_SUFFIXES = frozenset(
    {".heic", ".heif", ".jxl", ".jp2", ".svg", ".psd", ".tga", ".exr", ".hdr", ".ico", ".eps"}
    | {".cr2", ".nef", ".arw", ".dng", ".raw"}
)
TAR, PARQUET, ARROW = ".tar", ".parquet", ".arrow"
PACKED_SUFFIXES = (TAR, PARQUET, ARROW)
# What `datasets` leaves in the folder of a saved set when it is loaded and mapped.
_ARROW_CACHE = "cache-"
_MOST_NAMES = 100_000
_GROUP = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


@dataclass
class SourceFiles:
    """The files of a source that matter here, each kind sorted; `packed` or the other three are empty.

    Images and captions, of which there may be millions, are listed on disk.
    """

    images: SortedRows = field(default_factory=SortedRows)
    metadata: list[str] = field(default_factory=list)
    captions: SortedRows = field(default_factory=SortedRows)
    packed: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images) + len(self.metadata) + len(self.captions) + len(self.packed)

    def all_names(self) -> Iterator[str]:
        """Every path, sorted."""
        return merge(self.images.names(), self.metadata, self.captions.names(), self.packed)


def list_files(folder: Path, pattern: str | None = None) -> SourceFiles:
    """What a source folder holds, nested folders included.

    Args:
        folder: the source folder.
        pattern: see `matching`; None for all files.

    Raises:
        TwinflowError: as `sort_files`; the folder is missing, a link leads out of it, or a file's name is not
            valid UTF-8.
    """
    if not folder.is_dir():
        raise TwinflowError(
            "The data folder is missing." if not folder.exists() else "The data source is not a folder.",
            where=str(folder),
            fix="Set data.source in params.yaml to a folder of images with captions, or of packed files; "
            "data.files chooses among them.",
        )
    return sort_files(matching(_walk(folder), pattern), str(folder))


def sort_files(names: Iterable[str], where: str) -> SourceFiles:
    """Tell the files of a source apart by their names.

    Args:
        names: paths inside the source; hidden ones are passed over.
        where: the source, for messages.

    Raises:
        TwinflowError: the source is of two kinds, or a folder of it holds both metadata files.
    """
    files, texts = SourceFiles(), SortedRows()
    for name in names:
        path = PurePosixPath(name)
        suffix = path.suffix.lower()
        if any(part.startswith(".") for part in path.parts):
            continue
        if path.name in METADATA_NAMES:
            files.metadata.append(name)
        elif suffix in SUPPORTED_SUFFIXES | OTHER_PICTURE_SUFFIXES:
            files.images.add(name)
        elif path.suffix == ".txt":
            texts.add(name)
        elif path.suffix in PACKED_SUFFIXES and not _is_arrow_cache(path):
            files.packed.append(name)
    files.packed = _one_kind(files, where)
    if files.packed:
        return SourceFiles(packed=files.packed)
    for name in map(caption_name, files.images.names()):
        # Two images may share a name but for their suffix, and with it the caption.
        if name in texts and name not in files.captions:
            files.captions.add(name)
    files.metadata.sort()
    _refuse_two_metadata_files(where, files.metadata)
    return files


def matching(names: Iterable[str], pattern: str | None) -> Iterator[str]:
    """The names that a pattern chooses, in their order.

    Args:
        names: paths inside the source.
        pattern: shell wildcards and braces, `train/*.tar` or `shard-{000..099}.tar`; `*` stands
            for any characters, slashes too. None chooses all.

    Raises:
        TwinflowError: the braces stand for too many names, or after the last name: nothing was chosen.
    """
    if pattern is None:
        yield from names
        return
    wanted = _expanded(pattern)
    literal, wild = (
        {each for each in wanted if not _is_wild(each)},
        [each for each in wanted if _is_wild(each)],
    )
    missing, chosen = set(literal), False
    for name in names:
        if name in literal or any(fnmatchcase(name, each) for each in wild):
            missing.discard(name)
            chosen = True
            yield name
    if missing or not chosen:
        raise TwinflowError(
            f"data.files names what is not there: {min(missing)}."
            if missing
            else "data.files chooses none of the source's files.",
            where=f"params.yaml: data.files = {pattern}",
            fix="Correct the pattern; it is relative to data.source.",
        )


def caption_name(image_name: str) -> str:
    """The text file that may hold an image's caption."""
    return str(PurePosixPath(image_name).with_suffix(".txt"))


def _is_wild(name: str) -> bool:
    return any(character in name for character in "*?[")


def _expanded(pattern: str) -> list[str]:
    """The pattern with every brace spelt out."""
    pieces = _GROUP.split(pattern)
    choices = [[piece] if number % 2 == 0 else _choices(piece) for number, piece in enumerate(pieces)]
    total = 1
    for choice in choices:
        total *= len(choice)
    if total > _MOST_NAMES:
        raise TwinflowError(
            f"data.files stands for {total} names, at most {_MOST_NAMES} are allowed.",
            where=f"params.yaml: data.files = {pattern}",
            fix="Use `*` in place of the braces.",
        )
    return ["".join(each) for each in product(*choices)]


def _choices(inside: str) -> list[str]:
    ends = _RANGE.fullmatch(inside)
    if ends is None:
        return inside.split(",")
    first, last = int(ends[1]), int(ends[2])
    # A range too long to spell out is refused by its length, not after it was made.
    last = min(last, first + _MOST_NAMES)
    return [str(number).zfill(len(ends[1])) for number in range(first, last + 1)]


def _is_arrow_cache(path: PurePosixPath) -> bool:
    return path.suffix == ARROW and path.name.startswith(_ARROW_CACHE)


def _one_kind(files: SourceFiles, where: str) -> list[str]:
    """The packed files, all of one kind. A parquet file named as a tar beside it is that tar's own list."""
    tars = {PurePosixPath(name).with_suffix("") for name in files.packed if name.endswith(TAR)}
    packed = [
        name
        for name in files.packed
        if not (name.endswith(PARQUET) and PurePosixPath(name).with_suffix("") in tars)
    ]
    packed.sort()
    kinds = sorted({PurePosixPath(name).suffix for name in packed})
    if files.images:
        kinds.append("loose images")
    if len(kinds) > 1:
        raise TwinflowError(
            f"The data source is of several kinds: {', '.join(kinds)}.",
            where=where,
            fix="Keep them in folders of their own, or choose with data.files in params.yaml.",
        )
    return packed


def _walk(folder: Path) -> Iterator[str]:
    """Every regular file's path relative to the folder, in no order; links to folders are not followed."""
    root = folder.resolve()
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        with _entries(root / inside) as entries:
            for entry in entries:
                is_hidden = entry.name.startswith(".")
                if is_hidden and entry.is_dir():
                    continue
                if entry.is_symlink():
                    _require_inside(Path(entry.path), root)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{inside}{entry.name}/")
                elif entry.is_file() and not is_hidden:
                    yield _as_text(inside + entry.name)


@contextmanager
def _entries(folder: Path) -> Iterator[Iterator[os.DirEntry[str]]]:
    try:
        with os.scandir(folder) as entries:
            yield entries
    except OSError as error:
        raise TwinflowError(
            "A folder of the data cannot be read.",
            where=f"{os.fsencode(folder).decode(errors='replace')}: {error.strerror}",
            fix="Correct its permissions.",
        ) from None


def _require_inside(link: Path, root: Path) -> None:
    if not link.resolve().is_relative_to(root):
        raise TwinflowError(
            "A link leads out of the data folder.",
            where=os.fsencode(link).decode(errors="replace"),
            fix="Put the file itself there in place of the link.",
        )


def _as_text(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise TwinflowError(
            "A file's name is not valid UTF-8.",
            where=os.fsencode(name).decode(errors="replace"),
            fix="Rename the file.",
        ) from None
    return name


def _refuse_two_metadata_files(where: str, metadata: list[str]) -> None:
    holders = [PurePosixPath(name).parent for name in metadata]
    for holder in holders:
        if holders.count(holder) > 1:
            raise TwinflowError(
                "A folder holds both metadata.jsonl and metadata.csv.",
                where=str(Path(where) / holder),
                fix="Keep the one that is right and remove the other.",
            )
