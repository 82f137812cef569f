"""Printing for people and, with `--json`, for programs: one document on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from twinflow_core.errors import TwinflowError
from twinflow_core.params import PARAMS_FILE

JSON_FLAG = "--json"
Json = Annotated[bool, typer.Option(JSON_FLAG, help="Print one JSON document on standard output.")]


def find_root() -> Path:
    """The pipeline's folder: the present one or the nearest above it that holds params.yaml and dvc.yaml.

    Raises:
        TwinflowError: there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / PARAMS_FILE).is_file() and (folder / "dvc.yaml").is_file():
            return folder
    raise TwinflowError(
        "This is no clone of the pipeline: there is no params.yaml with a dvc.yaml here or above.",
        where=str(here),
        fix="Run twinflow inside the clone.",
    )


def print_document(document: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(document, indent=2, default=str))


def print_error(error: TwinflowError, as_json: bool) -> None:
    """What, where, fix on standard error; for programs also as a document on standard output."""
    print(error, file=sys.stderr)
    if as_json:
        print_document({"error": error.as_dict()})


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table for people on standard output; its title alone where there are no rows."""
    from rich.console import Console
    from rich.table import Table

    Console().print(title, style="italic", highlight=False, markup=False)
    if not rows:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console().print(table)
