"""The results of one soak as JSON, written after every cell, so that a soak goes on where it was stopped."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.machine import machine_fingerprint

RESULTS = Path(__file__).parents[1] / "results"
Cell = dict[str, Any]


class Ledger:
    """The cells of one soak.

    Args:
        name: of the soak; the file is `soak_<name>.json`.
        folder: where it lies.
    """

    def __init__(self, name: str, folder: Path = RESULTS) -> None:
        self.path = folder / f"soak_{name}.json"
        self.cells: dict[str, Cell] = {}
        if self.path.exists():
            self.cells = json.loads(self.path.read_text(encoding="utf-8"))["cells"]

    def run(self, key: str, work: Callable[[], Cell]) -> None:
        """Do one cell unless it is done; a broken promise of the product is a cell that failed, and is kept."""
        if key in self.cells:
            return
        start = time.monotonic()
        try:
            cell = {"passed": True, **work()}
        except AssertionError as error:
            cell = {"passed": False, "failure": str(error)[:2000]}
        cell["seconds"] = round(time.monotonic() - start, 1)
        self.cells[key] = cell
        self._save()
        print(f"  {key:40} {'ok' if cell['passed'] else 'FAILED'} {cell['seconds']:7.1f} s", flush=True)

    def _save(self) -> None:
        passed = Counter(key.rsplit(" ", 1)[0] for key, cell in self.cells.items() if cell["passed"])
        groups = Counter(key.rsplit(" ", 1)[0] for key in self.cells)
        document = {
            "machine": machine_fingerprint(),
            "summary": {group: f"{passed[group]} of {count}" for group, count in sorted(groups.items())},
            "passed": sum(passed.values()),
            "cells_run": len(self.cells),
            "cells": self.cells,
        }
        partial = self.path.with_suffix(".partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, self.path)

    @property
    def failures(self) -> list[str]:
        """The keys of the cells that failed."""
        return [key for key, cell in self.cells.items() if not cell["passed"]]
