"""How long a TwinFlow step takes against the plain one, same model, same batch, in one run.

    python -m benchmarks.objectives.step_time [--batch 64] [--rounds 7] [--compile] [--precision auto]

Loss and backward pass. The ways take turns, so that other work on the machine slows all of them alike; the ratio is
the median over the rounds of each round's own ratio. With `--compile` all ways run compiled networks.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.machine import machine_fingerprint
from benchmarks.objectives.cost import RowCounter
from benchmarks.objectives.naive_step import naive_loss
from benchmarks.result_file import tell_result
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.params import load_params
from twinflow_core.training.draws import normal
from twinflow_core.training.execution import Twins, make_networks, reduced_precision
from twinflow_core.training.roles import ROLES, RoleCounts, role_counts
from twinflow_core.training.step import Batch, Networks
from twinflow_core.training.twinflow_draws import StepDraws, draw_step
from twinflow_core.training.twinflow_objective import twinflow_loss

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks/results/step_time.json"
SAVING: dict[str, dict[str, Any]] = {
    "ours": {},
    "near rows as flow matching": {"near_target": "velocity"},
    "and shared fakes": {"near_target": "velocity", "fakes": "shared"},
}

Loss = Callable[[], torch.Tensor]


def measure(batch_size: int, rounds: int, compiled: bool, precision: str) -> dict[str, Any]:
    """The document that is written."""
    machine = machine_fingerprint()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = load_backbone(ROOT / "assets/base")
    prompts = backbone.encode_prompts(["a photo of a red circle"] * batch_size).to(device)
    empty = backbone.encode_prompts([""]).to(device)
    online = backbone.velocity.to(device).train()
    averaged = online.copy()
    twins = Twins(averaged, None, None)
    options = _options(batch_size)
    counts = role_counts(options.shares, 0, batch_size)
    shape = backbone.latent_shape
    batch = Batch(normal(0, 0, "x", (batch_size, *shape)).to(device), prompts, empty)
    draws = draw_step(0, 0, counts, shape).to(device)
    costs = _costs(
        ways_of(make_networks(online, twins, False), batch, draws, counts, options),
        [online, averaged],
        batch_size,
    )
    ways = ways_of(make_networks(online, twins, compiled), batch, draws, counts, options)
    seconds = take_turns(ways, rounds, online, device, precision)
    plain = seconds["plain"]
    return {
        "ways": {
            name: {
                "equivalents_a_row": costs[name],
                "milliseconds": round(1000 * statistics.median(each), 1),
                "times_as_fast": round(statistics.median(p / e for p, e in zip(plain, each, strict=True)), 3),
            }
            for name, each in seconds.items()
        },
        "batch": batch_size,
        "rounds": rounds,
        "compiled": compiled,
        "precision": precision,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "machine": machine,
    }


def ways_of(
    networks: Networks, batch: Batch, draws: StepDraws, counts: RoleCounts, options: FinetuneParams
) -> dict[str, Loss]:
    """The plain step and ours with each set of options, by name."""

    def ours(saving: dict[str, Any]) -> Loss:
        chosen = options.model_copy(update=saving)
        return lambda: twinflow_loss(networks, batch, draws, counts, chosen).loss

    plain: dict[str, Loss] = {"plain": lambda: naive_loss(networks, batch, draws, counts, options)}
    return plain | {name: ours(saving) for name, saving in SAVING.items()}


def _options(batch_size: int) -> FinetuneParams:
    document = load_params(ROOT / "params.yaml").finetune.model_dump()
    equal = {
        "batch_size": batch_size,
        "real_velocity": "online",
        "fake_velocity": "online",
        "one_step_target": "recursive",
        "order": 2,
        "shares": dict.fromkeys(ROLES, 1.0),
    }
    return FinetuneParams.model_validate({**document, **equal})


def _costs(ways: dict[str, Loss], networks: list[nn.Module], rows: int) -> dict[str, float]:
    """Forward-equivalents a row of each way, counted while it runs."""
    costs: dict[str, float] = {}
    for name, way in ways.items():
        with RowCounter().attached(networks) as counter:
            way()
        costs[name] = counter.equivalents / rows
    return costs


def take_turns(
    ways: dict[str, Loss], rounds: int, online: Any, device: torch.device, precision: Any
) -> dict[str, list[float]]:
    """Seconds of each way in every round but a first one, which warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            _wait(device)
            start = time.perf_counter()
            with reduced_precision(device, precision):
                loss = way()
            loss.backward()
            _wait(device)
            if turn:
                seconds[name].append(time.perf_counter() - start)
            online.zero_grad(set_to_none=True)
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Measure, print, and write benchmarks/results/step_time.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    result = measure(given.batch, given.rounds, given.compile, given.precision)
    tell_result(result, given.out)


if __name__ == "__main__":
    main()
