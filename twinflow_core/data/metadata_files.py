"""Reading `metadata.jsonl` and `metadata.csv`, line by line, each fault with its file and line number."""

from __future__ import annotations

import csv
import json
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO

from twinflow_core.data.rejections import Reason, Rejection
from twinflow_core.data.samples import refuse_constant
from twinflow_core.errors import TwinflowError

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
NAME_COLUMN = "file_name"
TEXT_COLUMN = "text"


@dataclass(frozen=True, slots=True)
class MetadataRow:
    """One line: the image's path relative to the source folder, its text, the other columns as JSON or ""."""

    file_name: str
    text: str
    metadata: str
    rejection: Rejection | None


@dataclass(frozen=True)
class _Line:
    """Where a row was read, for messages."""

    path: Path
    number: int

    def malformed(self, what: str) -> NoReturn:
        raise TwinflowError(
            f"A metadata line is malformed: {what}.",
            where=f"{self.path}, line {self.number}",
            fix="Correct or remove that line.",
        )


def read_metadata(folder: Path, name: str) -> Iterator[MetadataRow]:
    """The rows of one metadata file.

    Args:
        folder: the source folder.
        name: the metadata file's path inside it; `file_name` is relative to the folder this file lies in.

    Raises:
        TwinflowError: the file is not UTF-8, a line is malformed, a column is missing, or a `file_name` leads
            out of the source folder.
    """
    path = folder / name
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for line, document in _read_csv(path, file) if name.endswith(".csv") else _read_jsonl(path, file):
                yield _row(line, posixpath.dirname(name), document)
    except UnicodeDecodeError:
        raise TwinflowError(
            "A metadata file is not UTF-8 text.", where=str(path), fix="Save it again as UTF-8."
        ) from None
    except OSError as error:
        raise TwinflowError(
            "A metadata file cannot be read.",
            where=f"{path}: {error.strerror}",
            fix="Correct its permissions.",
        ) from None


def _read_jsonl(path: Path, file: TextIO) -> Iterator[tuple[_Line, dict[str, Any]]]:
    for number, text in enumerate(file, start=1):
        if not text.strip():
            continue
        line = _Line(path, number)
        try:
            document = json.loads(text, parse_constant=refuse_constant)
        except json.JSONDecodeError as error:
            line.malformed(f"not JSON ({error.msg} at column {error.colno})")
        except (ValueError, RecursionError) as error:
            line.malformed(f"not JSON ({error})")
        if not isinstance(document, dict):
            line.malformed("not a JSON object")
        yield line, document


def _read_csv(path: Path, file: TextIO) -> Iterator[tuple[_Line, dict[str, Any]]]:
    reader = csv.reader(file, strict=True)
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            _Line(path, reader.line_num).malformed(f"not CSV ({error})")
        if cells is None:
            return
        line = _Line(path, reader.line_num)
        if not cells:
            continue
        if header is None:
            header = _checked_header(line, cells)
            continue
        if len(cells) != len(header):
            line.malformed(f"{len(cells)} cells where the header has {len(header)} columns")
        yield line, dict(zip(header, cells, strict=True))


def _checked_header(line: _Line, cells: list[str]) -> list[str]:
    for column in (NAME_COLUMN, TEXT_COLUMN):
        if column not in cells:
            line.malformed(f"the header has no column `{column}` (it has {', '.join(cells)})")
    if len(set(cells)) < len(cells):
        line.malformed("the header names a column twice")
    return cells


def _row(line: _Line, folder_name: str, document: dict[str, Any]) -> MetadataRow:
    name = document.pop(NAME_COLUMN, None)
    if not isinstance(name, str) or not name.strip():
        line.malformed(f"`{NAME_COLUMN}` is missing or is not a text")
    if not _is_encodable(name):
        line.malformed(f"`{NAME_COLUMN}` is not valid Unicode")
    path = posixpath.normpath(posixpath.join(folder_name, name))
    if posixpath.isabs(name) or path.split("/")[0] == "..":
        raise TwinflowError(
            f"A metadata line names a path outside the data folder: {name!r}.",
            where=f"{line.path}, line {line.number}",
            fix="Put the image inside the folder and name it relative to the metadata file.",
        )
    text, rejection = document.pop(TEXT_COLUMN, None), None
    if text is None:
        text = ""
    elif not isinstance(text, str) or not _is_encodable(text):
        text, rejection = "", Rejection(Reason.UNREADABLE_CAPTION, f"`{TEXT_COLUMN}` is not a text")
    return MetadataRow(path, text, json.dumps(document, sort_keys=True) if document else "", rejection)


def _is_encodable(text: str) -> bool:
    """Whether a text can be stored; JSON's escapes can spell half of a surrogate pair, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
