"""The samples of a WebDataset tar: files that follow each other under one name, told apart by their endings.

Nothing is ever extracted. A member's name is only text, a link is never followed, and no more is read than its
header honestly needs.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from twinflow_core.data.rejections import Reason, Rejection
from twinflow_core.data.samples import (
    CAPTION_NAMES,
    MOST_TEXT_BYTES,
    Columns,
    Sample,
    checked_sample,
    most_image_bytes,
    refuse_constant,
)
from twinflow_core.data.source_files import OTHER_PICTURE_SUFFIXES, SUPPORTED_SUFFIXES
from twinflow_core.errors import TwinflowError

# Extended headers hold names and times; a longer one is there to fill the memory.
_MOST_HEADER_BYTES = 2**20


@dataclass
class _Group:
    """The members that share a name: contents by ending, and the first fault among them."""

    key: str
    first_name: str = ""
    contents: dict[str, bytes] = field(default_factory=dict)
    other_pictures: list[str] = field(default_factory=list)
    fault: Rejection | None = None


def read_tar(path: Path, name: str, columns: Columns, max_pixels: int) -> Iterator[Sample]:
    """The samples of one tar file in its order, one in memory at a time.

    Args:
        path: the file; not compressed.
        name: what its rows are named after.
        columns: `image` and `caption` may name an ending or, for the caption, a key of the `.json`.
        max_pixels: bounds the bytes of an image.

    Raises:
        TwinflowError: it is no tar file, or is damaged or cut off anywhere.
    """
    try:
        with path.open("rb") as file:
            yield from _samples(file, name, columns, most_image_bytes(max_pixels))
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
        raise TwinflowError(
            f"A tar file is damaged: {error}",
            where=str(path),
            fix="Fetch or pack it again, uncompressed.",
        ) from None


class _Headers:
    """A tar file as `tarfile` sees it: no header may ask for more than a mebibyte at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        """As a file's own."""
        if size > _MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)


def _samples(file: IO[bytes], name: str, columns: Columns, most_image: int) -> Iterator[Sample]:
    group: _Group | None = None
    for member in _members(file):
        place = PurePosixPath(member.name)
        stem, _, ending = place.name.partition(".")
        if member.isdir() or not stem:
            continue
        key = str(place.with_name(stem))
        if group is None or key != group.key:
            if group is not None:
                yield from _finished(group, name, columns)
            group = _Group(key)
        _add(group, member, ending.lower(), file, columns, most_image)
    if group is not None:
        yield from _finished(group, name, columns)


def _members(file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    with tarfile.open(fileobj=cast("IO[bytes]", _Headers(file)), mode="r:") as tar:
        while (member := tar.next()) is not None:
            # The library keeps every header it has met, in a list that its stubs do not tell of.
            cast("Any", tar).members.clear()
            yield member
        # It also takes a damaged header for the end, in silence.
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"no valid header at byte {tar.offset}")


def _add(
    group: _Group, member: tarfile.TarInfo, ending: str, file: IO[bytes], columns: Columns, most_image: int
) -> None:
    suffix = f".{ending}"
    is_image = suffix in SUPPORTED_SUFFIXES or ending == columns.image
    is_text = ending in ("txt", "json") or ending == columns.caption
    if suffix in OTHER_PICTURE_SUFFIXES:
        group.other_pictures.append(ending)
    if not is_image and not is_text:
        return
    if is_image and (columns.image is None or ending == columns.image):
        group.first_name = group.first_name or member.name
    fault = _fault(member, MOST_TEXT_BYTES if is_text else most_image)
    if fault is not None:
        group.fault = group.fault or fault
        return
    file.seek(member.offset_data)
    content = file.read(member.size)
    if len(content) < member.size:
        raise tarfile.ReadError("unexpected end of data")
    group.contents[ending] = content


def _fault(member: tarfile.TarInfo, most: int) -> Rejection | None:
    parts = member.name.split("/")
    if member.name.startswith("/") or ".." in parts or "\0" in member.name:
        return Rejection(Reason.UNSAFE_MEMBER, "its name leads out of the archive")
    if member.issym() or member.islnk():
        return Rejection(Reason.UNSAFE_MEMBER, "a link")
    if not member.isreg() or member.issparse():
        return Rejection(Reason.UNSAFE_MEMBER, "no plain file")
    if member.size > most:
        return Rejection(Reason.TOO_MANY_BYTES, f"{member.size}, at most {most}")
    return None


def _finished(group: _Group, name: str, columns: Columns) -> Iterator[Sample]:
    """The group's sample; none for files that have nothing to do with images."""
    endings = (
        [columns.image] if columns.image else [e for e in group.contents if f".{e}" in SUPPORTED_SUFFIXES]
    )
    images = [ending for ending in endings if ending in group.contents]
    if not (images or group.fault or group.other_pictures or {"txt", "json"} & group.contents.keys()):
        return
    fault = group.fault
    if fault is None and len(images) > 1:
        fault = Rejection(Reason.UNSUPPORTED_FORMAT, f"several images: {', '.join(images)}")
    elif fault is None and not images and group.other_pictures:
        fault = Rejection(Reason.UNSUPPORTED_FORMAT, ", ".join(group.other_pictures))
    elif fault is None and not images:
        fault = Rejection(Reason.MISSING_FILE, "the sample holds no image")
    text, metadata, unreadable = _text(group.contents, columns)
    image = group.contents[images[0]] if images else None
    yield checked_sample(
        f"{name}/{group.first_name or group.key}", image, text, metadata, fault or unreadable
    )


def _text(contents: dict[str, bytes], columns: Columns) -> tuple[object, dict[str, Any], Rejection | None]:
    """Caption, metadata, and why they cannot be read."""
    ending = columns.caption if columns.caption in contents and columns.caption != "json" else None
    if ending is None and columns.caption is None and "txt" in contents:
        ending = "txt"
    try:
        document = json.loads(contents["json"], parse_constant=refuse_constant) if "json" in contents else {}
        text: object = contents[ending].decode("utf-8-sig") if ending else None
    except (ValueError, RecursionError) as error:
        return None, {}, Rejection(Reason.UNREADABLE_CAPTION, str(error)[:200])
    if not isinstance(document, dict):
        return None, {}, Rejection(Reason.UNREADABLE_CAPTION, "the .json is no object")
    if ending is None:
        names = [columns.caption] if columns.caption else CAPTION_NAMES
        present = next((each for each in names if each in document), None)
        text = document.pop(present) if present else None
    return text, document, None
