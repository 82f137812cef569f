"""One case: a real shape trained by the product's own loop, beside what the plan says of it and the plain step.

The transformer has random weights, its latents and prompts are random, every prompt is at its longest.
`python -m benchmarks.plan_check.case CASE OUT` measures the case that a JSON document describes.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import torch

from benchmarks.machine import machine_fingerprint
from benchmarks.objectives.naive_step import AT_ITS_COUNT
from benchmarks.objectives.step_time import take_turns, ways_of
from benchmarks.result_file import tell_result
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.loading import FAMILIES as BACKBONES
from twinflow_core.errors import TwinflowError
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.params import load_params
from twinflow_core.plan.duration import plan_duration
from twinflow_core.plan.families import FAMILIES, Inputs
from twinflow_core.plan.gpus import GIB, GPUS, Gpu, find_gpu
from twinflow_core.plan.memory import plan_memory
from twinflow_core.plan.named_models import PlannedModel, named_model
from twinflow_core.plan.parameters import count_parameters
from twinflow_core.plan.setting import Setting, setting_of
from twinflow_core.plan.trace import trace_calls
from twinflow_core.training.encoded import EncodedData
from twinflow_core.training.loop import Training
from twinflow_core.training.resumption import Resume
from twinflow_core.training.roles import role_counts
from twinflow_core.training.step import Batch
from twinflow_core.training.twinflow_draws import draw_step

ROOT = Path(__file__).resolve().parents[2]
RESOLUTION, BATCH_SIZES = 512, (16, 8, 4, 2, 1)
# Of the GPU's memory, so that a plan that is too low by a tenth, or the plain step, still fits.
ROOM = 0.8
# Roles come round within four steps: the first four warm up.
WARM_UP, MEASURED, ROUNDS = 4, 8, 5
DATA_ROWS = 32
TINY: dict[str, dict[str, Any]] = {
    "sana-1.6b": {
        "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16, "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 16, "cross_attention_dim": 32, "caption_channels": 24, "sample_size": 4,
    },
    "sd3.5-medium": {
        "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16, "caption_projection_dim": 32,
        "joint_attention_dim": 32, "pooled_projection_dim": 24, "dual_attention_layers": (0,), "sample_size": 16,
    },
}  # fmt: skip
TINY_RESOLUTION, TINY_BATCH = 128, 4


@dataclass(frozen=True)
class Case:
    """What is measured: a named model, its low-rank weights' rank (0: all weights), compiled or not, tiny or not."""

    model: str
    lora_rank: int
    compiled: bool
    tiny: bool = False

    @property
    def name(self) -> str:
        """In a person's words."""
        trained = f"LoRA {self.lora_rank}" if self.lora_rank else "all weights"
        return f"{self.model}, {trained}, {'compiled' if self.compiled else 'eager'}"


def measure(case: Case) -> dict[str, Any]:
    """What the plan says, what was measured (on a CPU, None for what CUDA counts), and the plain step as a ratio."""
    # As the stage does.
    torch.use_deterministic_algorithms(True, warn_only=True)
    device = torch.device("cpu" if case.tiny else "cuda")
    gpu = find_gpu("h100-80") if case.tiny else gpu_here()
    model = _model(case)
    resolution = TINY_RESOLUTION if case.tiny else RESOLUTION
    options, planned = _planned(case, model, resolution, gpu)
    with tempfile.TemporaryDirectory() as state:
        training = _training(model, options, resolution, device, Path(state))
        seconds, peak = _steps(training)
        plain = _plain_against_ours(training, device)
    step = statistics.median(seconds)
    return {
        "parameters": sum(each.numel() for each in training.online.transformer.parameters()),
        "resolution": resolution,
        "batch": options.batch_size,
        "planned": planned,
        "measured": {
            "images_a_second": round(options.batch_size / step, 2),
            "seconds_a_step": round(step, 4),
            "mfu": None if peak is None else round(planned["flops_a_step"] / step / (gpu.tflops * 1e12), 3),
            "peak_gib": None if peak is None else round(peak / GIB, 2),
            "peak_over_plan": None if peak is None else round(peak / GIB / planned["allocated_gib"], 3),
        },
        "plain_step_over_ours": plain,
        "device": "cpu" if case.tiny else torch.cuda.get_device_name(),
        "machine": machine_fingerprint(),
    }


def gpu_here() -> Gpu:
    """The named GPU that this machine's is, with the memory that it really has.

    Raises:
        TwinflowError: it has no name, and so no peak, in the plan.
    """
    name = torch.cuda.get_device_name()
    memory = torch.cuda.get_device_properties(0).total_memory
    kin = [gpu for gpu in GPUS.values() if gpu.name.split("-")[0] in name.lower().replace(" ", "")]
    if not kin:
        raise TwinflowError(
            f"The plan does not know the GPU {name}.",
            where="twinflow_core/plan/gpus.py",
            fix="Add it with its vendor's figures.",
        )
    return replace(min(kin, key=lambda gpu: abs(gpu.memory - memory)), memory=memory)


def _model(case: Case) -> PlannedModel:
    model = named_model(case.model)
    return replace(model, config=model.config | TINY[case.model]) if case.tiny else model


def _planned(
    case: Case, model: PlannedModel, resolution: int, gpu: Gpu
) -> tuple[FinetuneParams, dict[str, float]]:
    """The options with the largest batch that the plan says fits with room to spare, and what it says."""
    family = FAMILIES[model.class_name]
    parameters = count_parameters(model)
    document = load_params(ROOT / "params.yaml").finetune.model_dump()
    for batch in (TINY_BATCH,) if case.tiny else BATCH_SIZES:
        asked = {
            "batch_size": batch, "lora_rank": case.lora_rank, "compile": case.compiled, "validate_every": 0,
            **AT_ITS_COUNT,
        }  # fmt: skip
        options = FinetuneParams.model_validate(document | asked)
        setting: Setting = setting_of(options)
        side = resolution // family.downscale
        calls = trace_calls(model.class_name, model.config, setting.variant, side, side, family.tokens)
        memory = plan_memory(options, setting, parameters, calls)
        if memory.total < ROOM * gpu.memory:
            break
    duration = plan_duration(options, setting, parameters, calls, gpu)
    return options, {
        "total_gib": round(memory.total / GIB, 2),
        # What CUDA's own counter sees: neither its context nor what its allocator cannot use.
        "allocated_gib": round((memory.total - memory.other) / GIB, 3),
        "flops_a_step": duration.flops / options.steps,
        "images_a_second_slow": round(duration.images_per_second[0], 2),
        "images_a_second_fast": round(duration.images_per_second[1], 2),
    }


def _training(
    model: PlannedModel, options: FinetuneParams, resolution: int, device: torch.device, state: Path
) -> Training:
    torch.manual_seed(0)
    with device:
        transformer = getattr(diffusers, model.class_name)(**model.config)
    velocities = {family.velocity_type.__name__: family.velocity_type for family in BACKBONES.values()}
    kind: Any = velocities[f"{FAMILIES[model.class_name].name.capitalize()}Velocity"]
    data = _data(model, resolution)
    return Training(kind(transformer), data, options, Resume(state, "case"), device=str(device))


def _data(model: PlannedModel, resolution: int) -> EncodedData:
    """Random latents and prompts in the shapes that the family's transformer takes."""
    family = FAMILIES[model.class_name]
    side = resolution // family.downscale
    given = family.call(model.config, Inputs(2, side, side, family.tokens))
    draws = torch.Generator().manual_seed(0)

    def random(name: str, rows: int) -> torch.Tensor | None:
        return torch.randn(rows, *given[name].shape[1:], generator=draws) if name in given else None

    latents, embeds = random("hidden_states", DATA_ROWS), random("encoder_hidden_states", 2)
    assert latents is not None
    assert embeds is not None
    mask = torch.ones(embeds.shape[:2], dtype=torch.bool) if "encoder_attention_mask" in given else None
    captions = torch.ones(DATA_ROWS, dtype=torch.int64)
    return EncodedData(latents, captions, Conditioning(embeds, random("pooled_projections", 2), mask))


def _steps(training: Training) -> tuple[list[float], int | None]:
    """Seconds of each step after the warm-up, and the most bytes that CUDA's allocator gave out in them."""
    on_gpu = training.device.type == "cuda"
    seconds = []
    for step in range(WARM_UP + MEASURED):
        if on_gpu and step == WARM_UP:
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        # Ends with numbers that were waited for, but for the update of weights and average.
        training._step(step)
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:], torch.cuda.max_memory_allocated() if on_gpu else None


def _plain_against_ours(training: Training, device: torch.device) -> float:
    """Median over the rounds of how many times as long the plain step's loss and gradient take."""
    options = training.options
    counts = role_counts(options.shares, 0, options.batch_size)
    rows = torch.arange(options.batch_size) % len(training.data)
    conditioning = training.data.conditioning[training.data.caption[rows]].to(device)
    batch = Batch(training.data.latents[rows].to(device), conditioning, training.data.empty.to(device))
    draws = draw_step(0, 0, counts, training.data.buckets[0].shape).to(device)
    ways = ways_of(training.networks, batch, draws, counts, options)
    pair = {name: ways[name] for name in ("plain", "ours")}
    seconds = take_turns(pair, ROUNDS, [training.online], device, options.precision)
    ratios = (plain / ours for plain, ours in zip(seconds["plain"], seconds["ours"], strict=True))
    return round(statistics.median(ratios), 3)


if __name__ == "__main__":
    tell_result(measure(Case(**json.loads(sys.argv[1]))), Path(sys.argv[2]))
