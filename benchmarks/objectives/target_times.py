"""Three ways to tell a network its target time, trained alike and scored at 1, 2 and 4 evaluations.

    python -m benchmarks.objectives.target_times [--steps 400] [--seeds 1] [--out FOLDER]

| way | the network's time embedding | few steps (r = 0) run on |
|---|---|---|
| `vanishing` | E1(t) + r E2(r), ours | the stock architecture |
| `difference` | E1(t) + (t - r) E2(r), the authors' | our code alone |
| `halved` | E1(t - r/2), the authors' for LoRA | the stock architecture |

A finished training is kept under `.twinflow`. Writes target_times.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import machine_fingerprint
from benchmarks.objectives.__main__ import RESULTS, ROOT, prepare_work
from benchmarks.objectives.scores import score_network
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.sd3 import Sd3Backbone, Sd3Velocity
from twinflow_core.backbones.target_time import TIME_SCALE
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.params import load_params
from twinflow_core.training.encoded import EncodedData
from twinflow_core.training.loop import Resume, Training

NFE = (1, 2, 4)


class DifferenceVelocity(Sd3Velocity):
    """E1(t) + (t - r) E2(r): the same second embedding under the authors' factor."""

    def __init__(self, transformer: Any) -> None:
        super().__init__(transformer)
        self.factor: Tensor | None = None
        host = transformer.time_text_embed.timestep_embedder
        host._forward_hooks.clear()
        host.register_forward_hook(self._add)

    def _add(self, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        r = self.target_time.r
        if r is None or self.factor is None:
            return output
        frequencies = self.target_time.project(TIME_SCALE * r).to(output.dtype)
        return output + self.factor.unsqueeze(1) * self.target_time.embed(frequencies)

    def forward(self, x_t: Tensor, t: Tensor, r: Tensor | None, conditioning: Conditioning) -> Tensor:
        """See `Velocity.forward`; without r, that of few steps."""
        r = torch.zeros_like(t) if r is None else r
        self.factor = t - r
        return super().forward(x_t, t, r, conditioning)


class HalvedVelocity(Sd3Velocity):
    """E1(t - r/2): no second embedding."""

    def forward(self, x_t: Tensor, t: Tensor, r: Tensor | None, conditioning: Conditioning) -> Tensor:
        """See `Velocity.forward`."""
        return super().forward(x_t, t if r is None else t - r / 2, None, conditioning)


WAYS: dict[str, type[Sd3Velocity]] = {
    "vanishing": Sd3Velocity,
    "difference": DifferenceVelocity,
    "halved": HalvedVelocity,
}


def load_way(folder: Path, way: str) -> Sd3Backbone:
    """The base, told its target time in this way."""

    class Told(Sd3Backbone):
        velocity_type = WAYS[way]

    return Told.load(folder)


def run_way(work: Path, way: str, seed: int, steps: int) -> dict[str, Any]:
    """Train and score one network; a training that is done is not repeated."""
    params = load_params(work / "params.yaml")
    changes = {"steps": steps, "seed": seed, "decay_steps": 0, "validate_every": 0}
    options = FinetuneParams.model_validate({**params.finetune.model_dump(), **changes})
    base = work / "models/base"
    state = work / "states" / f"{way}-{seed}-{steps}"
    resume = Resume(state, state.name)
    training = Training(
        load_way(base, way).velocity, EncodedData.load(work / "data/encoded", "train"), options, resume
    )
    training.run()
    scores = score_network(work, params, training.averaged, {"nfe": NFE}, load_way(base, way))
    return {
        "way": way,
        "seed": seed,
        "processor": machine_fingerprint()["processor"],
        "nfe": {nfe: by_sampler["jumps"] for nfe, by_sampler in scores.items()},
    }


def main() -> None:
    """Run what is missing, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--work", type=Path, default=ROOT / ".twinflow/bench-target-times")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    machine = machine_fingerprint()
    torch.use_deterministic_algorithms(True, warn_only=True)
    prepare_work(given.work, ROOT / "params.yaml")
    cells = [run_way(given.work, way, seed, given.steps) for seed in range(given.seeds) for way in WAYS]
    document = {"steps": given.steps, "machine": machine, "cells": cells}
    (given.out / "target_times.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for cell in cells:
        scores = ", ".join(f"NFE {nfe} {metrics['score']:.3f}" for nfe, metrics in cell["nfe"].items())
        print(f"{cell['way']:<12} seed {cell['seed']}: {scores}")


if __name__ == "__main__":
    main()
