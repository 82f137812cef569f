"""How long a TwinFlow step takes against the plain one, same model, same batch, in one run.

    python -m benchmarks.objectives.step_time [--batch 64] [--rounds 7] [--compile] [--precision auto]

Loss and backward pass, without the optimiser's update. The plain step and `ours` compute the same loss and gradient:
the authors' recipe at four equal roles, which is checked in float64 before anything is timed. Every other way is
timed against the same plain step but computes a loss of its own: the same recipe with options that save evaluations,
and the recipe of params.yaml with its own shares of roles, frozen base and second network.

The ways take turns, so that other work on the machine slows all of them alike; the ratio is the median over the
rounds of each round's own ratio. With `--compile` all ways run compiled networks.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.machine import machine_fingerprint
from benchmarks.objectives.cost import RowCounter
from benchmarks.objectives.naive_step import AT_ITS_COUNT, naive_loss
from benchmarks.objectives.same_numbers import difference_to_plain
from benchmarks.result_file import tell_result
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.params import load_params
from twinflow_core.training.draws import normal
from twinflow_core.training.execution import make_networks, make_twins, reduced_precision
from twinflow_core.training.objectives import counts_of_step, make_objective
from twinflow_core.training.ranks import ALONE
from twinflow_core.training.roles import RoleCounts, role_counts
from twinflow_core.training.step import Batch, MicroBatch, Networks
from twinflow_core.training.trainable import make_trainable
from twinflow_core.training.twinflow_draws import StepDraws, draw_step
from twinflow_core.training.twinflow_objective import twinflow_loss

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "assets/base"
RESULT = ROOT / "benchmarks/results/step_time.json"
SAVING: dict[str, dict[str, Any]] = {
    "ours": {},
    "near rows as flow matching": {"near_target": "velocity"},
    "and shared fakes": {"near_target": "velocity", "fakes": "shared"},
}
SAME_NUMBERS = ("plain", "ours")
BUNDLED = "the recipe of params.yaml"

Loss = Callable[[], torch.Tensor]


def measure(base: Path, batch_size: int, rounds: int, compiled: bool, precision: str) -> dict[str, Any]:
    """The document that is written.

    Args:
        base: a pipeline's folder.
        batch_size: rows of a step.
        rounds: how often each way is timed.
        compiled: whether to time compiled networks; costs are counted on eager ones.
        precision: of the matrix products, as in params.yaml.
    """
    machine = machine_fingerprint()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = load_backbone(base)
    prompts = backbone.encode_prompts(["a photo of a red circle"] * batch_size).to(device)
    empty = backbone.encode_prompts([""]).to(device)
    bundled = load_params(ROOT / "params.yaml").finetune.model_copy(update={"batch_size": batch_size})
    options = FinetuneParams.model_validate({**bundled.model_dump(), **AT_ITS_COUNT})
    online = make_trainable(backbone.velocity.train(), bundled).to(device)
    twins = make_twins(online, bundled, ALONE)
    counts = role_counts(options.shares, 0, batch_size)
    batch = Batch(normal(0, 0, "x", (batch_size, *backbone.latent_shape)).to(device), prompts, empty)
    draws = draw_step(0, 0, counts, backbone.latent_shape).to(device)
    difference = difference_to_plain(online, batch, draws, counts, options)

    def all_ways(compiling: bool) -> dict[str, Loss]:
        networks = make_networks(online, twins, compiling)
        alone = replace(networks, base=None, fake=None)
        return ways_of(alone, batch, draws, counts, options) | {BUNDLED: way_of(networks, batch, bundled)}

    trained = [online] if twins.fake_score is None else [online, twins.fake_score]
    costs = _costs(all_ways(False), [online, *(twin for twin in twins if twin is not None)], batch_size)
    seconds = take_turns(all_ways(compiled), rounds, trained, device, precision)
    plain = seconds["plain"]
    return {
        "ways": {
            name: {
                "same_numbers_as_plain": name in SAME_NUMBERS,
                "equivalents_a_row": round(costs[name], 3),
                "milliseconds": round(1000 * statistics.median(each), 1),
                "times_as_fast": round(statistics.median(p / e for p, e in zip(plain, each, strict=True)), 3),
            }
            for name, each in seconds.items()
        },
        "difference_in_float64": difference,
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
        return lambda: twinflow_loss(networks, MicroBatch(batch, draws, counts, counts), chosen).loss

    plain: dict[str, Loss] = {"plain": lambda: naive_loss(networks, batch, draws, counts, options)}
    return plain | {name: ours(saving) for name, saving in SAVING.items()}


def way_of(networks: Networks, batch: Batch, options: FinetuneParams) -> Loss:
    """The first step of these options on the same batch, which has as many rows, and no warm-up."""
    objective = make_objective(options)
    counts = counts_of_step(objective, options, 0)
    draws = draw_step(0, 0, counts, tuple(batch.x.shape[1:]), options.data_free).to(batch.x.device)
    rows = MicroBatch(batch, draws, counts, counts)
    return lambda: objective.loss(networks, rows, options.steps).loss


def _costs(ways: dict[str, Loss], networks: list[nn.Module], rows: int) -> dict[str, float]:
    """Forward-equivalents a row of each way, counted while it runs."""
    costs: dict[str, float] = {}
    for name, way in ways.items():
        with RowCounter().attached(networks) as counter:
            way()
        costs[name] = counter.equivalents / rows
    return costs


def take_turns(
    ways: dict[str, Loss], rounds: int, trained: Sequence[nn.Module], device: torch.device, precision: Any
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
            for network in trained:
                network.zero_grad(set_to_none=True)
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
    result = measure(BASE, given.batch, given.rounds, given.compile, given.precision)
    tell_result(result, given.out)


if __name__ == "__main__":
    main()
