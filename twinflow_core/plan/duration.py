"""How long a training takes: operations over an assumed share of the GPU's peak, and bytes that an update moves."""

from __future__ import annotations

from dataclasses import dataclass

from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.plan.gpus import Gpu
from twinflow_core.plan.memory import trainable_parameters
from twinflow_core.plan.parameters import Parameters
from twinflow_core.plan.setting import BYTES, Setting
from twinflow_core.plan.step_calls import equivalents_a_row, training_calls
from twinflow_core.plan.trace import Calls

# Assumed: the share of the peak that training reaches (model FLOPS utilisation), from slow to fast.
UTILISATION = (0.25, 0.5)
# Assumed: bytes a second between GPU and CPU, and through the CPU's memory.
PCIE = 20e9
HOST_MEMORY = 40e9
SECONDS_AN_HOUR = 3600


@dataclass(frozen=True)
class Duration:
    """What a run costs; each pair is from slow to fast.

    Attributes:
        equivalents_a_row: forward-equivalents a row (an evaluation is 1, a backward pass 2).
        equivalents: of the run.
        flops: floating-point operations of the run, over all GPUs.
        images_per_second: rows trained on, over all GPUs.
        hours: of the run.
    """

    equivalents_a_row: float
    equivalents: float
    flops: float
    images_per_second: tuple[float, float]
    hours: tuple[float, float]


def plan_duration(
    options: FinetuneParams, setting: Setting, parameters: Parameters, calls: Calls, gpu: Gpu
) -> Duration:
    """The run's length on this GPU.

    Args:
        options: the finetune section: the objective, its options, steps.
        setting: how it is trained.
        parameters: of the transformer.
        calls: the trace of its calls under `setting.variant`.
        gpu: what each process runs on.
    """
    steps = training_calls(options, setting.processes, setting.accumulation)
    flops = sum(
        calls.at(call.rows).training_flops if call.gradient else calls.at(call.rows).evaluation_flops
        for step in steps
        for part in step
        for call in part
    ) / len(steps)
    peak = (gpu.tflops_float32 if setting.precision == "float32" else gpu.tflops) * 1e12
    update = _update_seconds(setting, parameters, gpu)
    slow, fast = (flops / (peak * share) + update for share in UTILISATION)
    a_row = equivalents_a_row(steps, setting.batch_size / setting.processes)
    return Duration(
        equivalents_a_row=a_row,
        equivalents=a_row * setting.batch_size * options.steps,
        flops=flops * setting.processes * options.steps,
        images_per_second=(setting.batch_size / slow, setting.batch_size / fast),
        hours=(slow * options.steps / SECONDS_AN_HOUR, fast * options.steps / SECONDS_AN_HOUR),
    )


def _update_seconds(setting: Setting, parameters: Parameters, gpu: Gpu) -> float:
    """Weights, gradients, moments and average read and written once; by the bus for moments on the CPU."""
    trained = trainable_parameters(setting, parameters) / setting.processes
    width = 4 if setting.lora_rank else BYTES[setting.weights]
    # Gradient (clip and update), weight, average and its weight; two moments.
    moved = trained * (5 * width + 12 + 16)
    if setting.optimizer != "adamw_offload":
        return moved / gpu.bandwidth
    return trained * 2 * width / PCIE + trained * 28 / HOST_MEMORY
