"""Which networks the first steps of a training ask, for how many rows, with or without gradient."""

from __future__ import annotations

from functools import cache

import torch

from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.training.micro_batches import micro_batches
from twinflow_core.training.objectives import counts_of_step
from twinflow_core.training.rank_rows import share_of
from twinflow_core.training.ranks import Ranks
from twinflow_core.training.step_calls import SHAPE, Call, listed, plain_batch
from twinflow_core.training.twinflow_draws import draw_step

# Roles come round within a few steps.
STEPS = 4

MicroBatchCalls = tuple[Call, ...]


def training_calls(options: FinetuneParams, processes: int, accumulation: int) -> list[list[MicroBatchCalls]]:
    """The calls of one process in the first steps: step by step, micro-batch by micro-batch, in their order.

    Args:
        options: the finetune section.
        processes: how many share its rows; each has the same number, filled up where roles do not divide.
        accumulation: parts in which they are computed.
    """
    return _listed(options.model_dump_json(), processes, accumulation)


@cache
def _listed(options: str, processes: int, accumulation: int) -> list[list[MicroBatchCalls]]:
    read = FinetuneParams.model_validate_json(options)
    return [_step(read, step, processes, accumulation) for step in range(STEPS)]


def validation_calls(options: FinetuneParams, processes: int, accumulation: int) -> list[MicroBatchCalls]:
    """The calls of a validation loss, part by part as in `training_calls`; none where there is no validation."""
    if options.validate_every == 0:
        return []
    return _validated(options.model_dump_json(), processes, accumulation)


@cache
def _validated(options: str, processes: int, accumulation: int) -> list[MicroBatchCalls]:
    read = FinetuneParams.model_validate_json(options)
    with torch.no_grad():
        return _step(read, 0, processes, accumulation)


def equivalents_a_row(steps: list[list[MicroBatchCalls]], rows: float) -> float:
    """Forward-equivalents a row, the mean over these steps, each of so many rows of this process's own."""
    return sum(call.equivalents for step in steps for part in step for call in part) / (len(steps) * rows)


def _step(options: FinetuneParams, step: int, processes: int, accumulation: int) -> list[MicroBatchCalls]:
    asked = listed(options)
    whole = counts_of_step(asked.objective, options, step)
    share = share_of(whole, Ranks(0, processes))
    draws = draw_step(options.seed, step, whole, SHAPE, options.data_free).of_rows(share.rows)
    parts = micro_batches(plain_batch(share.counts.total), draws, share.counts, accumulation, whole)
    # Past every warm-up.
    return [asked.of(part, options.steps) for part in parts]
