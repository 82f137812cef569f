"""Rows sorted by name on disk: a million of them take no more memory than ten thousand."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from twinflow_core.full_disk import cannot_write


class SortedRows:
    """Texts under names, in a temporary file that goes with this object.

    Iterated in the names' order, which is that of `sorted`; texts under one name in the order they were added in.
    """

    def __init__(self) -> None:
        # No name: SQLite makes a file of its own beyond a cache of 2 MiB. Nothing of it has to outlive a crash.
        self._file = sqlite3.connect("", isolation_level=None)
        self._file.execute("PRAGMA journal_mode = OFF")
        self._file.execute(
            "CREATE TABLE rows (name TEXT, number INTEGER, text TEXT, PRIMARY KEY (name, number)) WITHOUT ROWID"
        )
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, name: str) -> bool:
        found = self._file.execute("SELECT 1 FROM rows WHERE name = ? LIMIT 1", (name,))
        return found.fetchone() is not None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        yield from self._file.execute("SELECT name, text FROM rows ORDER BY name, number")

    def names(self) -> Iterator[str]:
        """The names alone."""
        return (name for name, _ in self)

    def add(self, name: str, text: str = "") -> None:
        """Add a row; both must be valid Unicode.

        Raises:
            InfrastructureError: the disk is full.
        """
        try:
            self._file.execute("INSERT INTO rows VALUES (?, ?, ?)", (name, self._count, text))
        except sqlite3.OperationalError as error:
            raise cannot_write("The list of files", error, "the folder for temporary files") from error
        self._count += 1
