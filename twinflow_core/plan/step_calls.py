"""Which networks a step of the objective asks, for how many rows, with or without gradient: by running it.

The real objective runs on networks of one number, so that whatever option changes its calls changes the plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.training.micro_batches import micro_batches
from twinflow_core.training.objectives import counts_of_step, make_objective
from twinflow_core.training.rank_rows import share_of
from twinflow_core.training.ranks import Ranks
from twinflow_core.training.step import Batch, Networks
from twinflow_core.training.twinflow_draws import draw_step

# Roles come round within a few steps.
STEPS = 4
SHAPE = (1, 1, 1)
BACKWARD = 2


@dataclass(frozen=True)
class Call:
    """One evaluation of a network: how many rows, and whether its gradient is asked."""

    network: Literal["online", "averaged", "base", "own"]
    rows: int
    gradient: bool

    @property
    def equivalents(self) -> int:
        """Forward-equivalents: one a row, and two more for its gradient."""
        return self.rows * (1 + BACKWARD * self.gradient)


MicroBatchCalls = tuple[Call, ...]


class _Listing:
    """A network of one number that lists how it is called."""

    def __init__(self, name: Any, trained: bool, calls: list[Call]) -> None:
        self.name = name
        self.number = torch.tensor(0.5, requires_grad=trained)
        self.calls = calls

    def __call__(self, x_t: Tensor, t: Tensor, r: Tensor | None, conditioning: Conditioning) -> Tensor:
        velocity = self.number * x_t
        self.calls.append(Call(self.name, len(x_t), velocity.requires_grad))
        return velocity


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
    # Forward-mode differentiation hides its calls; they are counted as those of the finite difference.
    plain = options.meanflow.model_copy(update={"derivative": "finite_difference"})
    options = options.model_copy(update={"meanflow": plain})
    calls: list[Call] = []
    own: Any = _Listing("own", True, calls) if options.has_fake_score else None
    base = _Listing("base", False, calls) if options.needs_base else None
    networks = Networks(_Listing("online", True, calls), _Listing("averaged", False, calls), base, own)
    objective = make_objective(options)
    whole = counts_of_step(objective, options, step)
    share = share_of(whole, Ranks(0, processes))
    rows = share.counts.total
    conditioning = Conditioning(torch.zeros(rows, 1, 1), torch.zeros(rows, 1))
    batch = Batch(torch.zeros(rows, *SHAPE), conditioning, conditioning[:1])
    draws = draw_step(options.seed, step, whole, SHAPE, options.data_free).of_rows(share.rows)
    listed: list[MicroBatchCalls] = []
    for part in micro_batches(batch, draws, share.counts, accumulation, whole):
        # Past every warm-up.
        objective.loss(networks, part, options.steps)
        listed.append(tuple(calls))
        calls.clear()
    return listed
