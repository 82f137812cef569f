"""The settings of a training that decide its memory and speed, and what keeps each kind of number in how many bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import ValidationError

from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.plan.trace import Variant

Number = Literal["float32", "bfloat16"]
Optimizer = Literal["adamw", "adamw_8bit", "adamw_offload"]
Quantized = Literal["none", "int8", "nf4"]
BYTES: dict[Number, int] = {"float32": 4, "bfloat16": 2}
# Two moments in float32; in eight bits; none on the GPU.
MOMENT_BYTES: dict[Optimizer, float] = {"adamw": 8, "adamw_8bit": 2 + 8 / 256, "adamw_offload": 0}
# A weight with its share of the scales: one an output channel (counted apart), one in four bytes each 64 weights.
QUANTIZED_BYTES: dict[Quantized, float] = {"none": math.nan, "int8": 1.0, "nf4": 0.5625}
# What making such a weight anew needs a value: float32 and bfloat16; or nf4's codes and 12 bytes of indices.
MADE_ANEW_BYTES: dict[Quantized, int] = {"none": 0, "int8": 6, "nf4": 17}
# What an update needs a value of the tensor that it is at, beside gradient, moments and weight.
UPDATE_BYTES: dict[tuple[Optimizer, Number], int] = {
    ("adamw", "float32"): 0, ("adamw", "bfloat16"): 22, ("adamw_8bit", "float32"): 30,
    ("adamw_8bit", "bfloat16"): 34, ("adamw_offload", "float32"): 0, ("adamw_offload", "bfloat16"): 4,
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """How a model is trained, as far as memory and speed go.

    Attributes:
        batch_size: rows of a step, over all processes.
        accumulation: parts in which a process computes its rows.
        processes: GPUs that train together, weights sharded over them (FSDP2) where there are several.
        lora_rank: 0 trains all weights.
        checkpointing: whether blocks run again in the backward pass.
        precision: of matrix products.
        weights: of the transformer.
        optimizer: which AdamW.
        quantized_base: of the frozen blocks under low-rank weights.
    """

    batch_size: int
    accumulation: int = 1
    processes: int = 1
    lora_rank: int = 0
    checkpointing: bool = False
    precision: Number = "bfloat16"
    weights: Number = "float32"
    optimizer: Optimizer = "adamw"
    quantized_base: Quantized = "none"

    @property
    def rows(self) -> int:
        """Rows of a step on the process that has most."""
        return math.ceil(self.batch_size / self.processes)

    @property
    def variant(self) -> Variant:
        """What the trace of a call depends on. Gathered and quantised weights are in bfloat16 when they are used."""
        short = self.precision == "bfloat16"
        made_short = short and (self.processes > 1 or self.quantized_base != "none")
        weights = torch.bfloat16 if self.weights == "bfloat16" or made_short else torch.float32
        return Variant(self.lora_rank, self.checkpointing, weights, short)


def setting_of(options: FinetuneParams, processes: int | None = None) -> Setting:
    """The setting that params.yaml asks for, on CUDA.

    Args:
        options: the finetune section.
        processes: in place of those that it launches.
    """
    return Setting(
        batch_size=options.batch_size,
        accumulation=options.accumulation,
        processes=processes or options.launch.total,
        lora_rank=options.lora_rank,
        checkpointing=options.gradient_checkpointing,
        precision="float32" if options.precision == "float32" else "bfloat16",
        weights=options.weights,
        optimizer=options.optimizer,
        quantized_base=options.quantized_base,
    )


def refusal(options: FinetuneParams, setting: Setting) -> str:
    """Why the training would not start with this setting, in its own words; empty where it would."""
    asked = {
        "batch_size": setting.batch_size,
        "accumulation": setting.accumulation,
        "launch": {"processes": setting.processes},
        "lora_rank": setting.lora_rank,
        "gradient_checkpointing": setting.checkpointing,
        "weights": setting.weights,
        "optimizer": setting.optimizer,
        "quantized_base": setting.quantized_base,
    }
    try:
        FinetuneParams.model_validate({**options.model_dump(), **asked})
    except ValidationError as error:
        return error.errors()[0]["msg"].removeprefix("Value error, ")
    return ""
