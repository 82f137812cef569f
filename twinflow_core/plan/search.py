"""The setting to choose: as asked where that fits, else the cheapest that changes as little as possible."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from twinflow_core.plan.setting import Number, Optimizer, Quantized, Setting

LORA_RANK = 64
LEAST_LORA_RANK = 16
MOST_PROCESSES = 16
NUMBERS: tuple[Number, ...] = ("float32", "bfloat16")
KINDS: tuple[Quantized, ...] = ("none", "int8", "nf4")


def candidates(asked: Setting) -> Iterator[list[Setting]]:
    """Settings on as many GPUs as asked, in groups that change ever more of the result; not all can be trained.

    1. The same numbers: more parts a step, repeated blocks, an optimizer in the CPU's memory.
    2. Rounded: weights in bfloat16, moments in eight bits.
    3. Low-rank weights in place of all.
    4. These on a quantised base, at last of a lower rank.
    """
    yield list(_same_numbers(asked))
    yield [
        replace(each, weights=weights, optimizer=optimizer)
        for each in _same_numbers(asked)
        for weights, optimizer in product(NUMBERS[NUMBERS.index(asked.weights) :], _optimizers(asked))
    ]
    low_rank = replace(asked, lora_rank=asked.lora_rank or LORA_RANK)
    if not asked.lora_rank:
        yield list(_same_numbers(low_rank))
    on_short = [replace(each, weights="bfloat16") for each in _same_numbers(low_rank)]
    for kind in KINDS[KINDS.index(asked.quantized_base) :]:
        yield [replace(each, quantized_base=kind) for each in on_short]
    if low_rank.lora_rank > LEAST_LORA_RANK:
        yield [replace(each, quantized_base="nf4", lora_rank=LEAST_LORA_RANK) for each in on_short]


def on_more_gpus(asked: Setting) -> Iterator[list[Setting]]:
    """Settings with the same numbers on 2, 4, .. GPUs, fewest first; no more GPUs than rows."""
    processes = 2
    while processes <= min(MOST_PROCESSES, asked.batch_size):
        if processes > asked.processes:
            yield list(_same_numbers(replace(asked, processes=processes)))
        processes *= 2


def changes(asked: Setting, found: Setting) -> dict[str, object]:
    """What of the setting differs from what was asked."""
    return {name: value for name, value in vars(found).items() if value != vars(asked)[name]}


def _optimizers(asked: Setting) -> tuple[Optimizer, ...]:
    return (asked.optimizer,) if asked.optimizer != "adamw" else ("adamw", "adamw_8bit", "adamw_offload")


def _same_numbers(asked: Setting) -> Iterator[Setting]:
    offloaded: tuple[Optimizer, ...] = ("adamw_offload",) if asked.optimizer == "adamw" else ()
    for optimizer, checkpointing in product(
        (asked.optimizer, *offloaded), (True,) if asked.checkpointing else (False, True)
    ):
        parts = min(asked.accumulation, asked.rows)
        while True:
            yield replace(asked, optimizer=optimizer, checkpointing=checkpointing, accumulation=parts)
            if parts >= asked.rows:
                break
            parts = min(2 * parts, asked.rows)
