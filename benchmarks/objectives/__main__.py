"""`make bench-objectives`: five objectives, three seeds, at equal steps and at equal cost.

    python -m benchmarks.objectives [--steps 800] [--seeds 3] [--only twinflow rcgm] [--out FOLDER]
    python -m benchmarks.objectives options   (TwinFlow with one option changed at a time)

Every finished cell is kept in the work folder: run it again after a stop, and it goes on where it was. Writes
objectives.json, objectives.md and objectives.png, or those of options.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.machine import machine_fingerprint
from benchmarks.objectives.report import draw_plot, table
from benchmarks.objectives.rivals import COMPARISONS
from benchmarks.objectives.scores import NFE
from twinflow_core.params import load_params
from twinflow_core.stages.base import base
from twinflow_core.stages.encode import encode
from twinflow_core.stages.prepare import prepare
from twinflow_core.stages.raw import raw

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks/results"


def prepare_work(work: Path, params_file: Path) -> None:
    """Data, base and encoded data in the work folder, from the parameters given; what is there is kept."""
    if (work / "data/encoded").exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    document = yaml.safe_load(params_file.read_text(encoding="utf-8"))
    document["base"]["folder"] = str(ROOT / document["base"]["folder"])
    document["data"]["source"] = str(ROOT / document["data"]["source"])
    (work / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    params = load_params(work / "params.yaml")
    for stage in (raw, prepare, base, encode):
        stage(params, work)


def run_cells(
    work: Path, objectives: list[str], seeds: int, settings: dict[str, Any]
) -> list[dict[str, Any]]:
    """The documents of all cells; those that are missing are made, each in a process of its own."""
    held = work / "settings.json"
    if held.exists() and json.loads(held.read_text(encoding="utf-8")) != settings:
        sys.exit(f"{work} holds cells of other settings. Give another --work, or delete it.")
    held.write_text(json.dumps(settings), encoding="utf-8")
    cells = []
    for seed in range(seeds):
        for objective in objectives:
            path = work / "cells" / f"{objective}-{seed}.json"
            if not path.exists():
                print(f"== {objective}, seed {seed}", flush=True)
                module = "benchmarks.objectives.cell"
                command = [sys.executable, "-m", module, str(work), objective, str(seed), str(held)]
                subprocess.run(command, check=True, cwd=ROOT)
            cells.append(json.loads(path.read_text(encoding="utf-8")))
    return cells


def write_results(stem: Path, document: dict[str, Any]) -> None:
    """Write STEM.json, STEM.md and STEM.png, and print the table."""
    cells, nfe = document["cells"], document["settings"]["nfe"]
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    text = table(cells, nfe)
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
    draw_plot(cells, nfe, stem.with_suffix(".png"))
    print(text)


def main() -> None:
    """Run what is missing, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("comparison", nargs="?", choices=COMPARISONS, default="objectives")
    parser.add_argument("--steps", type=int, help="of TwinFlow; params.yaml's unless given")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="some of them, by name")
    parser.add_argument("--params", type=Path, default=ROOT / "params.yaml")
    parser.add_argument("--every", type=int, default=50, help="steps between checkpoints")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--nfe", type=int, nargs="+", default=list(NFE))
    parser.add_argument("--work", type=Path, default=ROOT / ".twinflow/bench-objectives")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    known = list(COMPARISONS[given.comparison])
    names = given.only or known
    if unknown := set(names) - set(known):
        parser.error(f"--only: {', '.join(sorted(unknown))}: not among {', '.join(known)}")
    overrides: dict[str, Any] = {"checkpoint_every": given.every}
    overrides |= {"steps": given.steps} if given.steps else {}
    overrides |= {"batch_size": given.batch_size} if given.batch_size else {}
    machine = machine_fingerprint()
    prepare_work(given.work, given.params)
    settings = {"overrides": overrides, "nfe": given.nfe}
    cells = run_cells(given.work, names, given.seeds, settings)
    document = {"settings": {**settings, "seeds": given.seeds}, "machine": machine, "cells": cells}
    write_results(given.out / given.comparison, document)


if __name__ == "__main__":
    main()
