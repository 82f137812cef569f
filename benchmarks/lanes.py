"""How long a step of the bundled training takes with a lane for each core, against one lane of as many threads.

    python -m benchmarks.lanes [--rounds 15]

Whole steps, updates and averages included. The two take turns, so that other work on the machine slows both alike; the
ratio is the median over the rounds of each round's own ratio.
"""

from __future__ import annotations

import argparse
import statistics
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


def measure(base: Path, options: FinetuneParams, rounds: int) -> dict[str, Any]:
    """The document that is written.

    Args:
        base: a pipeline's folder.
        options: the finetune section.
        rounds: how often each way is timed, after a first step of both.
    """
    machine = machine_fingerprint()
    with tempfile.TemporaryDirectory() as state:
        lanes, one = (_training(base, options, Path(state)) for _ in range(2))
    one.lanes = Lanes([one.networks], one.lanes.trained, one.lanes.costs)
    ways = {"lanes": lanes, "one": one}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for step in range(rounds + 1):
        for name, training in ways.items():
            start = time.perf_counter()
            training._step(step)
            if step:
                seconds[name].append(time.perf_counter() - start)
    ratios = [a / b for a, b in zip(seconds["one"], seconds["lanes"], strict=True)]
    return {
        "threads": torch.get_num_threads(),
        "lanes": lanes.lanes.count,
        "milliseconds": {name: round(1000 * statistics.median(each), 1) for name, each in seconds.items()},
        "times_as_fast": round(statistics.median(ratios), 3),
        "batch": options.batch_size,
        "rounds": rounds,
        "machine": machine,
    }


def _training(base: Path, options: FinetuneParams, state: Path) -> Training:
    backbone = load_backbone(base)
    rows = options.batch_size
    data = EncodedData(
        normal(0, 0, "x", (rows, *backbone.latent_shape)),
        torch.ones(rows, dtype=torch.long),
        backbone.encode_prompts(["", "a photo of a red circle"]),
    )
    return Training(backbone.velocity, data, options, Resume(state, "lanes"))


def main() -> None:
    """Measure, print, and write benchmarks/results/lanes.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    tell_result(measure(BASE, load_params(ROOT / "params.yaml").finetune, given.rounds), given.out)


if __name__ == "__main__":
    main()
