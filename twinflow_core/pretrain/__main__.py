"""`python -m twinflow_core.pretrain --out FOLDER`: what `twinflow pretrain` runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from twinflow_core.errors import TwinflowError
from twinflow_core.pretrain.recipe import Recipe, load_recipe
from twinflow_core.pretrain.run import pretrain


def main(
    out: Annotated[Path, typer.Option(help="the base's folder")],
    recipe: Annotated[Path | None, typer.Option(help="a YAML recipe; the built-in one unless given")] = None,
    work: Annotated[Path | None, typer.Option(help="where half-done work is kept")] = None,
    warm_start: Annotated[Path | None, typer.Option(help="an earlier base to go on from")] = None,
) -> None:
    """Train a base from scratch and print its record as JSON; the log goes to standard error."""
    chosen = load_recipe(recipe) if recipe else Recipe()
    try:
        record = pretrain(
            chosen, out, lambda line: print(line, file=sys.stderr, flush=True), work, warm_start
        )
    except TwinflowError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(int(error.code)) from error
    print(json.dumps(record))


if __name__ == "__main__":
    typer.run(main)
