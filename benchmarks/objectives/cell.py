"""One training of the comparison, scored where its steps and where its cost equal TwinFlow's.

    python -m benchmarks.objectives.cell WORK OBJECTIVE SEED SETTINGS.json

A process of its own, so that peak memory is this training's alone. It goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import machine_fingerprint
from benchmarks.objectives.cost import equivalents_a_row
from benchmarks.objectives.rivals import rival_options
from benchmarks.objectives.scores import score_network
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.params import Params, load_params
from twinflow_core.peak_memory import peak_bytes
from twinflow_core.training.encoded import EncodedData
from twinflow_core.training.loop import Resume, Training
from twinflow_core.training.speed import FILE as SPEED

COUNTED_STEPS, COUNTED_ROWS = 4, 16


def stops(steps: int, cost: float, twinflow_cost: float, every: int) -> dict[str, int]:
    """After how many steps to score: TwinFlow's number, and the number that costs what TwinFlow's do.

    Args:
        steps: TwinFlow's.
        cost: forward-equivalents a row of this objective.
        twinflow_cost: those of TwinFlow.
        every: steps between checkpoints; both stops are multiples of it.
    """
    equal_cost = max(1, round(steps * twinflow_cost / cost / every)) * every
    return {"equal_steps": steps, "equal_cost": equal_cost}


def run_cell(work: Path, objective: str, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Train, score at both stops, and return the cell's document."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    params = load_params(work / "params.yaml")
    every = settings["overrides"]["checkpoint_every"]
    options = rival_options(objective, seed, params.finetune, settings["overrides"])
    twinflow = rival_options("twinflow", seed, params.finetune, settings["overrides"])
    state = work / "states" / f"{objective}-{seed}"
    cost, reference_cost = (_cost(work, state, each) for each in (options, twinflow))
    wanted = stops(options.steps, cost, reference_cost, every)
    scored = _scored_stops(work, state, options, params, wanted, settings)
    return {
        "objective": objective,
        "seed": seed,
        "processor": machine_fingerprint()["processor"],
        "equivalents_a_row": round(cost, 3),
        "images_per_second": json.loads((state / SPEED).read_text())["images_per_second"],
        "peak_memory_mib": _peak_memory(),
        "stops": scored,
    }


def _scored_stops(
    work: Path,
    state: Path,
    options: FinetuneParams,
    params: Params,
    wanted: dict[str, int],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """The stops in the order of training. Each is written down at once: a state never goes back to an earlier one."""
    path = state / "stops.json"
    scored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name, steps in sorted(wanted.items(), key=lambda each: each[1]):
        if name in scored:
            continue
        known = next((each for each in scored.values() if each["steps"] == steps), None)
        if known is None:
            training = _training(work, state, options.model_copy(update={"steps": steps}))
            training.run()
            known = {"steps": steps, "nfe": score_network(work, params, training.averaged, settings)}
        scored[name] = known
        path.write_text(json.dumps(scored), encoding="utf-8")
    return scored


def _training(work: Path, state: Path, options: FinetuneParams) -> Training:
    velocity = load_backbone(work / "models/base").velocity
    data = EncodedData.load(work / "data/encoded", "train")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Training(velocity.to(device), data, options, Resume(state, state.name))


def _cost(work: Path, state: Path, options: FinetuneParams) -> float:
    few = options.model_copy(update={"batch_size": COUNTED_ROWS})
    return equivalents_a_row(_training(work, state, few), COUNTED_STEPS)


def _peak_memory() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() >> 20
    return peak_bytes() >> 20


def main() -> None:
    """Write WORK/cells/OBJECTIVE-SEED.json."""
    work, objective, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    settings = json.loads(Path(sys.argv[4]).read_text(encoding="utf-8"))
    document = run_cell(work, objective, seed, settings)
    path = work / "cells" / f"{objective}-{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".partial").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".partial").replace(path)


if __name__ == "__main__":
    main()
