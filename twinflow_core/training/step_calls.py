"""Which networks the rows of a step ask, with or without gradient, and what that costs: by running the objective.

The real objective runs on networks of one number, so that whatever option changes its calls is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.training.objectives import Objective, make_objective
from twinflow_core.training.roles import Role, RoleCounts
from twinflow_core.training.step import Batch, MicroBatch, Networks
from twinflow_core.training.twinflow_draws import draw_step

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


class Listed(NamedTuple):
    """An objective on networks that write down how they are called."""

    objective: Objective
    networks: Networks
    calls: list[Call]

    def of(self, rows: MicroBatch, step: int) -> tuple[Call, ...]:
        """The calls of these rows at a 0-based step, in their order."""
        self.objective.loss(self.networks, rows, step)
        made = tuple(self.calls)
        self.calls.clear()
        return made


def listed(options: FinetuneParams) -> Listed:
    """The objective of the options, to be asked for its calls."""
    # Forward-mode differentiation hides its calls; they are counted as those of the finite difference.
    plain = options.meanflow.model_copy(update={"derivative": "finite_difference"})
    options = options.model_copy(update={"meanflow": plain})
    calls: list[Call] = []
    own: Any = _Listing("own", True, calls) if options.has_fake_score else None
    base = _Listing("base", False, calls) if options.needs_base else None
    networks = Networks(_Listing("online", True, calls), _Listing("averaged", False, calls), base, own)
    return Listed(make_objective(options), networks, calls)


def plain_batch(rows: int) -> Batch:
    """Rows of one number each."""
    conditioning = Conditioning(torch.zeros(rows, 1, 1), torch.zeros(rows, 1))
    return Batch(torch.zeros(rows, *SHAPE), conditioning, conditioning[:1])


def row_costs(options: FinetuneParams) -> dict[Role, int]:
    """Forward-equivalents of a row of each role that the objective plays, past every warm-up."""
    asked = listed(options)
    costs: dict[Role, int] = {}
    for role in asked.objective.roles:
        counts = RoleCounts(**{"one_step": 0, "near": 0, "any": 0, "fake": 0, role: 1})
        draws = draw_step(options.seed, 0, counts, SHAPE, options.data_free)
        calls = asked.of(MicroBatch(plain_batch(1), draws, counts, counts), options.steps)
        costs[role] = sum(call.equivalents for call in calls)
    return costs
