"""Bytes and floating-point operations of a transformer's calls, from running it on tensors without data."""

from __future__ import annotations

import copy
import importlib
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from twinflow_core.backbones.lora import add_lora
from twinflow_core.plan.blocks import Measured, block_counts, over_rows, with_blocks
from twinflow_core.plan.cuda_rules import CudaRules
from twinflow_core.plan.families import FAMILIES, META, Config, Family, Inputs
from twinflow_core.plan.storage_ledger import StorageLedger


@dataclass(frozen=True)
class Variant:
    """What changes the bytes of a call, beside its rows.

    Attributes:
        lora_rank: 0 trains all weights.
        checkpointing: whether blocks run again in the backward pass in place of keeping their activations.
        weights: type of the weights: float32 or bfloat16.
        autocast: whether matrix products of float32 weights run in bfloat16.
    """

    lora_rank: int
    checkpointing: bool
    weights: torch.dtype
    autocast: bool


@dataclass(frozen=True)
class Trace:
    """What calls of a transformer need beyond its weights, at a number of rows.

    Attributes:
        saved: bytes that a call with gradient leaves for its backward pass.
        held: the same while autocast keeps its short copies of the weights: until the last call of the step.
        forward: the most bytes during that call.
        backward: the most bytes during its backward pass, gradients of weights aside.
        evaluation: the most bytes during a call without gradient.
        evaluation_flops: of that call.
        training_flops: of a call with gradient and its backward pass, repeated blocks included.
    """

    saved: int
    held: int
    forward: int
    backward: int
    evaluation: int
    evaluation_flops: int
    training_flops: int


def build(class_name: str, config: Config, variant: Variant | None = None) -> Any:
    """The transformer without data, prepared for training as the variant says.

    Raises:
        ValueError: the class is none of `FAMILIES`.
    """
    if class_name not in FAMILIES:
        raise ValueError(f"no family has the class {class_name}")
    made_by = getattr(importlib.import_module("diffusers"), class_name)
    with META:
        model = made_by(**{key: value for key, value in config.items() if not key.startswith("_")})
    if variant is not None:
        # diffusers' own `to` prints a warning that is about other types.
        nn.Module.to(model, variant.weights)
        if variant.lora_rank:
            with META:
                add_lora(model, variant.lora_rank, 0, FAMILIES[class_name].lora_layers)
    return model.train()


def target_time_like(model: nn.Module, family: Family) -> nn.Module:
    """A copy of the time MLP: what the target time adds to the trained weights."""
    return copy.deepcopy(model.get_submodule(family.time_mlp)).requires_grad_(True)


@dataclass(frozen=True)
class Calls:
    """The trace of one row, and what every further row adds to it."""

    one: Trace
    more: Trace

    def at(self, rows: int) -> Trace:
        """The trace of calls with so many rows, at least one."""
        names = [field.name for field in fields(Trace)]
        return Trace(
            **{name: getattr(self.one, name) + (rows - 1) * getattr(self.more, name) for name in names}
        )


def trace_calls(
    class_name: str, config: Config, variant: Variant, height: int, width: int, tokens: int
) -> Calls:
    """What calls of the whole transformer need, from models of few blocks (see `blocks`).

    Args:
        class_name: one of `FAMILIES`.
        config: the transformer's configuration.
        variant: how it is trained.
        height: of the latents.
        width: of the latents.
        tokens: text tokens a row.
    """
    family = FAMILIES[class_name]

    def measure(counts: tuple[int, ...], rows: int) -> Measured:
        model = build(class_name, with_blocks(config, family, counts), variant)
        return measured(model, family, variant, Inputs(rows, height, width, tokens))

    one, more = over_rows(measure, block_counts(config, family))
    return Calls(Trace(**one), Trace(**more))


def measured(model: Any, family: Family, variant: Variant, size: Inputs) -> Measured:
    """The fields of `Trace` for this very model, every block of it run."""
    return _training(model, family, variant, size) | _evaluation(model, family, variant, size)


def _training(model: Any, family: Family, variant: Variant, size: Inputs) -> Measured:
    rules = CudaRules(variant.autocast)
    if variant.checkpointing:
        model.enable_gradient_checkpointing(rules.checkpointed)
    ledger = StorageLedger([*model.parameters(), *model.buffers()])
    ledger.watch_gradients(model.parameters())
    with ledger:
        with rules:
            loss = _first(model(**family.call(model.config, size), return_dict=False)).float().square().mean()
        forward, held = ledger.peak, ledger.alive
        rules.leave_autocast()
        saved = ledger.alive
        ledger.mark_peak()
        loss.backward()
    return {
        "saved": saved,
        "held": held,
        "forward": forward,
        "backward": ledger.peak,
        "training_flops": ledger.flops,
    }


def _evaluation(model: Any, family: Family, variant: Variant, size: Inputs) -> Measured:
    ledger = StorageLedger([*model.parameters(), *model.buffers()])
    with ledger, CudaRules(variant.autocast), torch.no_grad():
        made = _first(model(**family.call(model.config, size), return_dict=False))
    del made
    return {"evaluation": ledger.peak, "evaluation_flops": ledger.flops}


def _first(made: Any) -> Tensor:
    """A family that takes lists gives a list of images."""
    return torch.stack(made[0]) if isinstance(made[0], list) else made[0]
