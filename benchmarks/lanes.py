"""How long a step of the bundled training takes with a lane for each core, against one lane of as many threads.

    python -m benchmarks.lanes [--rounds 6] [--steps 20]

Whole steps, updates and averages included. Each way runs in processes of its own, as trainings do; the two take turns,
so that other work on the machine slows both alike. The ratio is that of the medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import machine_fingerprint
from benchmarks.result_file import tell_result
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.params import load_params
from twinflow_core.training.draws import normal
from twinflow_core.training.encoded import EncodedData
from twinflow_core.training.lanes import Lanes
from twinflow_core.training.loop import Resume, Training

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "assets/base"
RESULT = ROOT / "benchmarks/results/lanes.json"
WAYS = ("lanes", "one")
FIRST_STEPS = 2


def milliseconds_a_step(base: Path, options: FinetuneParams, way: str, steps: int) -> dict[str, float]:
    """The mean time of a step of this way, after two first ones, and how many lanes there were.

    Args:
        base: a pipeline's folder.
        options: the finetune section.
        way: `lanes`, or `one` lane.
        steps: how many are timed.
    """
    options = options.model_copy(update={"steps": FIRST_STEPS + steps})
    backbone = load_backbone(base)
    rows = options.batch_size
    data = EncodedData(
        normal(0, 0, "x", (rows, *backbone.latent_shape)),
        torch.ones(rows, dtype=torch.long),
        backbone.encode_prompts(["", "a photo of a red circle"]),
    )
    with tempfile.TemporaryDirectory() as state:
        training = Training(backbone.velocity, data, options, Resume(Path(state), "lanes"))
    if way == "one":
        training.lanes = Lanes([training.networks], training.lanes.trained, training.lanes.costs)
    start = 0.0
    for step in range(FIRST_STEPS + steps):
        if step == FIRST_STEPS:
            start = time.perf_counter()
        training._step(step)
    return {"milliseconds": 1000 * (time.perf_counter() - start) / steps, "lanes": training.lanes.count}


def measure(rounds: int, steps: int) -> dict[str, Any]:
    """The document that is written: the bundled recipe on random latents."""
    machine = machine_fingerprint()
    told: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.lanes", "--way", way, "--steps", str(steps)]
            done = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
            told[way].append(json.loads(done.stdout.splitlines()[-1]))
    each = {way: [round(one["milliseconds"], 1) for one in told[way]] for way in WAYS}
    median = {way: statistics.median(each[way]) for way in WAYS}
    return {
        "threads": torch.get_num_threads(),
        "lanes": int(told["lanes"][0]["lanes"]),
        "milliseconds": each,
        "times_as_fast": round(median["one"] / median["lanes"], 3),
        "steps": steps,
        "machine": machine,
    }


def main() -> None:
    """Measure, print, and write benchmarks/results/lanes.json; with --way, time that one here."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    if given.way:
        options = load_params(ROOT / "params.yaml").finetune
        print(json.dumps(milliseconds_a_step(BASE, options, given.way, given.steps)))
    else:
        tell_result(measure(given.rounds, given.steps), given.out)


if __name__ == "__main__":
    main()
