"""How many times the images a second: ONNX Runtime at 1 NFE against the base in torch at its many guided steps.

    python -m benchmarks.one_step_speed [--model assets/base] [--package export] [--batch 16] [--rounds 5]

From prompt embeddings to uint8 pixels, same batch, same threads, in one run; the ways take turns, so that other
work on the machine slows all of them alike. Random weights would do: no figure depends on what is drawn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.drawn_batch import draw_batch
from benchmarks.machine import machine_fingerprint
from benchmarks.result_file import tell_result
from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.conditioning import POOLED, Conditioning
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.evaluation.generation import few_step_sampler, many_step_sampler, to_pixels
from twinflow_core.export.layout import write_graphs
from twinflow_core.export.pieces import trace
from twinflow_core.params import PARAMS_FILE, load_params
from twinflow_core.runtime.loaded_package import to_pixels as served_pixels
from twinflow_core.runtime.package import generator_graph
from twinflow_core.runtime.providers import CPU
from twinflow_core.runtime.sessions import GraphSession

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks/results/one_step_speed.json"
PROMPT = "a red circle above a blue square"
GRAPHS = (generator_graph(1), "transformer/model.onnx")
TARGET = 50.0

Way = Callable[[], object]


def whole_path(
    backbone: Backbone, session: GraphSession, batch: int, steps: int, guidance: float
) -> dict[str, Way]:
    """The ways from embeddings and noise to pixels, by name."""
    drawn = draw_batch(backbone, PROMPT, batch)
    conditioning, in_torch, inputs = drawn.conditioning, drawn.in_torch, drawn.for_onnx
    many, few = many_step_sampler(backbone, steps, guidance), few_step_sampler(backbone)
    return {
        "base_torch": lambda: to_pixels(backbone.decode_latents(many(in_torch, conditioning))),
        "one_step_torch": lambda: to_pixels(backbone.decode_latents(few(in_torch, conditioning))),
        "one_step_onnx": lambda: served_pixels(session.run(inputs)[0]),
    }


def denoiser(backbone: Backbone, session: GraphSession, batch: int, steps: int) -> dict[str, Way]:
    """The network alone: one evaluation in ONNX Runtime, and all of a guided sampling in torch."""
    conditioning = backbone.encode_prompts([PROMPT] * batch)
    x = torch.randn(batch, *backbone.latent_shape)
    inputs = {
        "hidden_states": x.numpy(),
        "encoder_hidden_states": conditioning.prompt_embeds.numpy(),
        "pooled_projections": conditioning.tensors()[POOLED].numpy(),
        "timestep": np.full(batch, 1000.0, np.float32),
    }
    doubled, t = x.repeat(2, 1, 1, 1), torch.ones(2 * batch)
    both = Conditioning.cat([conditioning, conditioning])

    @torch.no_grad()
    def guided_steps() -> None:
        for _ in range(steps):
            backbone.velocity(doubled, t, t, both)

    return {"denoiser_torch": guided_steps, "denoiser_onnx": lambda: session.run(inputs)}


def take_turns(ways: dict[str, Way], rounds: int) -> dict[str, float]:
    """Median seconds of each way, the ways in turn, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            # Short ways several times in a turn, so that all are measured over a like span.
            repeats = 1 if name in ("base_torch", "denoiser_torch") else 10
            for _ in range(repeats):
                start = time.perf_counter()
                way()
                if turn:
                    seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(model: Path, package: Path | None, batch: int, rounds: int, threads: int) -> dict[str, Any]:
    """The whole document that is written: figures, settings, machine."""
    params = load_params(ROOT / PARAMS_FILE)
    steps, guidance = params.reference.steps, params.reference.guidance
    torch.set_num_threads(threads)
    machine = machine_fingerprint()
    backbone = load_backbone(model)
    with tempfile.TemporaryDirectory() as folder:
        graphs = package or _export(backbone, Path(folder), params.export.opset)
        one_step, transformer = (GraphSession(graphs / name, CPU, threads) for name in GRAPHS)
        ways = whole_path(backbone, one_step, batch, steps, guidance)
        ways |= denoiser(backbone, transformer, batch, steps)
        seconds = take_turns(ways, rounds)
    ratio = seconds["base_torch"] / seconds["one_step_onnx"]
    return {
        "images_per_second": {
            name: round(batch / seconds[name], 2)
            for name in ("base_torch", "one_step_torch", "one_step_onnx")
        },
        "times_base": round(ratio, 1),
        "times_base_target": TARGET,
        "times_base_denoiser": round(seconds["denoiser_torch"] / seconds["denoiser_onnx"], 1),
        "times_torch_at_one_step": round(seconds["one_step_torch"] / seconds["one_step_onnx"], 2),
        "milliseconds": {name: round(1000 * value, 3) for name, value in seconds.items()},
        "base": {"steps": steps, "guidance": guidance, "nfe": 2 * steps},
        "batch": batch,
        "threads": threads,
        "rounds": rounds,
        "machine": machine,
    }


def _export(backbone: Backbone, folder: Path, opset: int) -> Path:
    def told(done: int, name: str) -> None:
        print(f"exported {name}", flush=True)

    write_graphs(folder, backbone, trace(backbone, opset, told), [1], "fp32", told)
    return folder


def main() -> None:
    """Measure, print, and write benchmarks/results/one_step_speed.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "assets/base")
    parser.add_argument("--package", type=Path, help="exported from the model; else it is exported now")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    result = measure(given.model, given.package, given.batch, given.rounds, given.threads)
    tell_result(result, given.out)


if __name__ == "__main__":
    main()
