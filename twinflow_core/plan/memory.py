"""Bytes of one GPU at the moment of a step when most are in use, by part."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.plan.gpus import GIB
from twinflow_core.plan.parameters import Parameters
from twinflow_core.plan.setting import (
    BYTES,
    MADE_ANEW_BYTES,
    MOMENT_BYTES,
    QUANTIZED_BYTES,
    UPDATE_BYTES,
    Setting,
)
from twinflow_core.plan.step_calls import MicroBatchCalls, training_calls, validation_calls
from twinflow_core.plan.trace import Calls

Phase = Literal["forward", "backward", "update", "validation"]
# Assumed: CUDA's context and libraries, and what its allocator cannot use of what it holds.
CONTEXT = int(0.75 * GIB)
UNUSABLE = 0.05
# FSDP2 gathers the next block while one runs.
GATHERED_BLOCKS = 2


@dataclass(frozen=True)
class Memory:
    """Bytes by part; together they are the most that a step needs on one GPU.

    Attributes:
        weights: of the network that is trained.
        optimizer: its moments.
        average: the averaged copy.
        base: the frozen copy, and a second network that the objective trains.
        gradients: at that moment.
        activations: what calls keep and use at that moment, autocast's copies of weights included.
        gathered: blocks that were gathered from other GPUs.
        other: assumed: context, libraries, fragmentation.
        phase: which moment it is.
        host: bytes in the CPU's memory for an offloaded optimizer, not on the GPU.
    """

    weights: int
    optimizer: int
    average: int
    base: int
    gradients: int
    activations: int
    gathered: int
    other: int
    phase: Phase
    host: int

    @property
    def total(self) -> int:
        """Bytes on the GPU."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, int]:
        """The parts on the GPU by name."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in ("phase", "host")
        }


@dataclass(frozen=True)
class _Moment:
    phase: Phase
    gradients: int
    activations: int

    @property
    def total(self) -> int:
        return self.gradients + self.activations


def trainable_parameters(setting: Setting, parameters: Parameters) -> int:
    """How many parameters of the network are trained: all, or low-rank weights; and the target time."""
    own = parameters.lora_a_rank * setting.lora_rank if setting.lora_rank else parameters.transformer
    return own + parameters.target_time


def plan_memory(options: FinetuneParams, setting: Setting, parameters: Parameters, calls: Calls) -> Memory:
    """What one GPU needs.

    Args:
        options: the finetune section: the objective and its options.
        setting: how it is trained.
        parameters: of the transformer.
        calls: the trace of its calls under `setting.variant`.
    """
    shard = setting.processes
    trained = trainable_parameters(setting, parameters)
    second = _second_network(options, setting, parameters)
    frozen = _frozen_bytes(setting, parameters)
    # Tables are whole on every GPU.
    tables = parameters.buffers * 4
    gradients = (trained + second.trained) * _trained_width(setting) // shard
    steps = training_calls(options, setting.processes, setting.accumulation)
    peak = max(_moments(options, setting, parameters, calls, steps, gradients), key=lambda each: each.total)
    moments = int((trained + second.trained) * MOMENT_BYTES[setting.optimizer])
    offloaded = setting.optimizer == "adamw_offload"
    return Memory(
        weights=(trained * _trained_width(setting) + frozen) // shard + tables,
        optimizer=moments // shard,
        # Averages move by less than bfloat16 can tell: they are in float32.
        average=(trained * 4 + (frozen if shard > 1 else 0)) // shard + tables,
        base=(_base_bytes(options, setting, parameters) + second.bytes) // shard
        + (tables if options.needs_base else 0),
        gradients=peak.gradients,
        activations=peak.activations,
        gathered=_gathered(setting, parameters),
        other=CONTEXT + int(UNUSABLE * (peak.total + _gathered(setting, parameters))),
        phase=peak.phase,
        # A float32 copy of the weights, both moments, and during the update the gradient.
        host=(trained + second.trained) * 16 // shard if offloaded else 0,
    )


@dataclass(frozen=True)
class _Second:
    trained: int
    bytes: int


def _second_network(options: FinetuneParams, setting: Setting, parameters: Parameters) -> _Second:
    """A fake score: low-rank weights on the base's own, or a copy of everything."""
    if not options.has_fake_score:
        return _Second(0, 0)
    if options.fake_score.weights == "lora":
        trained = parameters.lora_a_rank * options.fake_score.rank
        # In shards it has a part of the base for itself.
        frozen = _under_low_rank_weights(setting, parameters) if setting.processes > 1 else 0
        return _Second(trained, trained * 4 + frozen)
    return _Second(parameters.transformer, parameters.transformer * BYTES[setting.weights])


def _trained_width(setting: Setting) -> int:
    """Bytes of a trained value: low-rank weights stay in float32 whatever the transformer is in."""
    return 4 if setting.lora_rank else BYTES[setting.weights]


def _frozen_bytes(setting: Setting, parameters: Parameters) -> int:
    """The transformer under low-rank weights; nothing where all of it is trained."""
    return _under_low_rank_weights(setting, parameters) if setting.lora_rank else 0


def _under_low_rank_weights(setting: Setting, parameters: Parameters) -> int:
    width = BYTES[setting.weights]
    if setting.quantized_base == "none":
        return parameters.transformer * width
    rest = (parameters.transformer - parameters.block_linears) * width
    scales = parameters.block_rows * 4 if setting.quantized_base == "int8" else 0
    return rest + scales + int(parameters.block_linears * QUANTIZED_BYTES[setting.quantized_base])


def _base_bytes(options: FinetuneParams, setting: Setting, parameters: Parameters) -> int:
    """The frozen copy; under low-rank weights it shares theirs, where they are not sharded."""
    if not options.needs_base:
        return 0
    copied = parameters.transformer * BYTES[setting.weights]
    if setting.lora_rank:
        copied = _frozen_bytes(setting, parameters) if setting.processes > 1 else 0
    return copied + parameters.target_time * 4


def _gathered(setting: Setting, parameters: Parameters) -> int:
    """Whole blocks on this GPU in the type they run in, all that is outside of blocks, one block's gradient."""
    if setting.processes == 1:
        return 0
    width = BYTES[setting.precision]
    outside = (parameters.transformer - parameters.in_blocks) * 4
    gradient = 0 if setting.lora_rank else parameters.largest_block * (width + 4)
    return GATHERED_BLOCKS * parameters.largest_block * width + outside + gradient


def _moments(
    options: FinetuneParams,
    setting: Setting,
    parameters: Parameters,
    calls: Calls,
    steps: list[list[MicroBatchCalls]],
    gradients: int,
) -> list[_Moment]:
    """The candidates for the highest moment of a step."""
    # From the second micro-batch on the gradients of the first are there all the time.
    standing = gradients if setting.accumulation > 1 else 0
    made_anew = MADE_ANEW_BYTES[setting.quantized_base] * parameters.largest_linear
    found = [_Moment("update", gradients, _update_bytes(setting, parameters))]
    for part in {part for step in steps for part in step}:
        forward, saved, extra = _calls_of(part, calls)
        found.append(_Moment("forward", standing, forward + made_anew))
        # Gradients grow while activations go; the sum is largest at one of the two ends.
        found.append(_Moment("backward", standing, saved + extra + made_anew))
        found.append(_Moment("backward", gradients, extra + (saved if standing else 0) + made_anew))
    # Outside of steps a network that is not sharded runs in full precision: at most twice the bytes.
    longer = 2 if setting.precision == "bfloat16" and setting.processes == 1 else 1
    for part in set(validation_calls(options, setting.processes, setting.accumulation)):
        most = max(calls.at(call.rows).evaluation for call in part)
        found.append(_Moment("validation", 0, longer * most + made_anew))
    return found


def _calls_of(part: MicroBatchCalls, calls: Calls) -> tuple[int, int, int]:
    """Most bytes until the last call, bytes left for the backward pass, bytes that this adds to them."""
    held = saved = forward = extra = 0
    for call in part:
        trace = calls.at(call.rows)
        if call.gradient:
            forward = max(forward, held + trace.forward)
            held += trace.held
            saved += trace.saved
            extra = max(extra, trace.backward - trace.saved)
        else:
            forward = max(forward, held + trace.evaluation)
    return forward, saved, extra


def _update_bytes(setting: Setting, parameters: Parameters) -> int:
    """What updating the weights needs beside the gradients: others than torch's fused AdamW go tensor by tensor."""
    if setting.lora_rank:
        # Each of them is small.
        return 0
    return UPDATE_BYTES[setting.optimizer, setting.weights] * parameters.largest
