"""`make bench-serving`: images a second and p95 of one request, base against candidate, torch against ONNX Runtime.

    python -m benchmarks.serving_speed [--model assets/base] [--batches 1 4 16] [--rounds 5] [--threads N]

From prompt embeddings to uint8 pixels, same batch, same noise, same threads, in one run; the ways take turns, so
that other work on the machine slows all of them alike. No figure depends on what is drawn, so the base stands in for
the candidate, whose network is the same. The denoiser alone is beside it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
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
from twinflow_core.export.layout import TRANSFORMER, write_graphs
from twinflow_core.export.pieces import trace
from twinflow_core.export.precision import Precision
from twinflow_core.params import PARAMS_FILE, load_params
from twinflow_core.runtime.loaded_package import to_pixels as served_pixels
from twinflow_core.runtime.package import generator_graph
from twinflow_core.runtime.providers import choose_provider
from twinflow_core.runtime.sessions import GraphSession
from twinflow_core.sampling.few_step import sample_few_steps

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks/results/serving_speed.json"
PROMPT = "a red circle above a blue square"
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
# Of these one request lasts many times as long as of the others: fewer are measured.
SLOW = ("base_torch_many_steps", "denoiser_torch_many_steps")
REPEATS = 10
TARGETS = {"onnx_over_torch_at_one_step": 1.3, "onnx_denoiser_over_base_denoiser": 100.0}

Way = Callable[[], object]


def ways_of(
    backbone: Backbone, sessions: dict[str, GraphSession], batch: int, steps: int, guidance: float
) -> dict[str, Way]:
    """What is measured at one batch size, by name."""
    drawn = draw_batch(backbone, PROMPT, batch)
    conditioning, noises, in_torch, given = drawn.conditioning, drawn.noises, drawn.in_torch, drawn.for_onnx
    many, few = many_step_sampler(backbone, steps, guidance), few_step_sampler(backbone)
    compiled = (
        {} if why_not_compile() else {"one_step_torch_compile": _compiled(backbone, conditioning, in_torch)}
    )
    return {
        **compiled,
        "base_torch_many_steps": lambda: to_pixels(backbone.decode_latents(many(in_torch, conditioning))),
        "one_step_torch": lambda: to_pixels(backbone.decode_latents(few(in_torch, conditioning))),
        "one_step_onnx_fp32": lambda: served_pixels(sessions["fp32"].run(given)[0]),
        "one_step_onnx_int8": lambda: served_pixels(sessions["int8"].run(given)[0]),
        "denoiser_torch_many_steps": _guided_steps(backbone, conditioning, in_torch[0], steps),
        "denoiser_onnx": _denoiser(sessions["denoiser"], conditioning, noises[0]),
    }


def why_not_compile() -> str | None:
    """Why torch.compile cannot be measured here, or None if it can."""
    names = (os.environ.get("CXX") or "g++", "clang++")
    if any(shutil.which(name) for name in names):
        return None
    return f"torch.compile needs a C++ compiler; none of {', '.join(names)} is on the path"


def _compiled(backbone: Backbone, conditioning: Conditioning, given: torch.Tensor) -> Way:
    """One step and the decoder through torch.compile, with its own default settings."""

    def draw(noises: torch.Tensor) -> torch.Tensor:
        latents = sample_few_steps(lambda x_t, t, r: backbone.velocity(x_t, t, r, conditioning), noises)
        return backbone.decode_latents(latents)

    compiled = torch.compile(draw, dynamic=False)
    return lambda: to_pixels(compiled(given))


def _guided_steps(backbone: Backbone, conditioning: Conditioning, x: torch.Tensor, steps: int) -> Way:
    doubled, t = x.repeat(2, 1, 1, 1), torch.ones(2 * len(x))
    both = Conditioning.cat([conditioning, conditioning])

    @torch.no_grad()
    def run() -> None:
        for _ in range(steps):
            backbone.velocity(doubled, t, t, both)

    return run


def _denoiser(session: GraphSession, conditioning: Conditioning, x: np.ndarray) -> Way:
    given = {
        "hidden_states": x,
        "encoder_hidden_states": conditioning.prompt_embeds.numpy(),
        "pooled_projections": conditioning.tensors()[POOLED].numpy(),
        "timestep": np.full(len(x), 1000.0, np.float32),
    }
    return lambda: session.run(given)


def take_turns(ways: dict[str, Way], rounds: int) -> dict[str, list[float]]:
    """Seconds of every request of each way, the ways in turn, after one round to warm up and compile."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            for _ in range(1 if name in SLOW or not turn else REPEATS):
                start = time.perf_counter()
                way()
                if turn:
                    seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(seconds: dict[str, list[float]], batch: int) -> dict[str, Any]:
    """Rates, percentiles and ratios at one batch size."""
    middle = {name: float(np.median(each)) for name, each in seconds.items()}
    return {
        "images_per_second": {name: round(batch / value, 2) for name, value in middle.items()},
        "p50_ms": {name: round(1000 * value, 2) for name, value in middle.items()},
        "p95_ms": {name: round(1000 * float(np.percentile(each, 95)), 2) for name, each in seconds.items()},
        "requests": {name: len(each) for name, each in seconds.items()},
        "ratios": {
            "onnx_over_torch_at_one_step": _ratio(middle, "one_step_torch", "one_step_onnx_fp32"),
            "onnx_over_compile_at_one_step": _ratio(middle, "one_step_torch_compile", "one_step_onnx_fp32"),
            "int8_over_fp32": _ratio(middle, "one_step_onnx_fp32", "one_step_onnx_int8"),
            "onnx_over_base": _ratio(middle, "base_torch_many_steps", "one_step_onnx_fp32"),
            "onnx_denoiser_over_base_denoiser": _ratio(middle, "denoiser_torch_many_steps", "denoiser_onnx"),
        },
    }


def _ratio(middle: dict[str, float], slow: str, fast: str) -> float | None:
    """None if one of them was not measured."""
    return round(middle[slow] / middle[fast], 2) if slow in middle and fast in middle else None


def measure(model: Path, batches: Sequence[int], rounds: int, threads: int) -> dict[str, Any]:
    """The whole document that is written."""
    params = load_params(ROOT / PARAMS_FILE)
    steps, guidance = params.reference.steps, params.reference.guidance
    torch.set_num_threads(threads)
    machine = machine_fingerprint()
    provider = choose_provider("auto")
    backbone = load_backbone(model)
    with tempfile.TemporaryDirectory() as folder:
        packages: dict[Precision, Path] = {each: Path(folder) / each for each in PRECISIONS}
        pieces = trace(backbone, params.export.opset, _told("traced"))
        for precision, package in packages.items():
            package.mkdir()
            write_graphs(package, backbone, pieces, [1], precision, _told(precision))
        sessions: dict[str, GraphSession] = {
            name: GraphSession(package / generator_graph(1), provider.name, threads)
            for name, package in packages.items()
        }
        sessions["denoiser"] = GraphSession(packages["fp32"] / TRANSFORMER, provider.name, threads)
        by_batch = {
            str(batch): summary(
                take_turns(ways_of(backbone, sessions, batch, steps, guidance), rounds), batch
            )
            for batch in batches
        }
    return {
        "by_batch": by_batch,
        "targets": TARGETS,
        "skipped": {"one_step_torch_compile": reason} if (reason := why_not_compile()) else {},
        "base": {"steps": steps, "guidance": guidance, "nfe": 2 * steps},
        "provider": provider.name,
        "threads": threads,
        "rounds": rounds,
        "machine": machine,
    }


def _told(precision: str) -> Callable[[int, str], None]:
    return lambda done, name: print(f"exported {name} ({precision})", flush=True)


def main() -> None:
    """Measure, print, and write benchmarks/results/serving_speed.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "assets/base")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    result = measure(given.model, given.batches, given.rounds, given.threads)
    tell_result(result, given.out)


if __name__ == "__main__":
    main()
