"""A step's rows in parts that are computed one after the other, so that memory holds one part at a time.

The rows of a step are one batch whatever the number of parts: roles, draws and means are those of the whole step,
and the parts' gradients add up to its gradient. With `fakes: shared` they do not: a fake is one of the one_step images
of its own part, and in a part without any it is made from noise of its own. Part k of n has every n-th row from the
k-th on, so that all take the same time and memory.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from twinflow_core.training.roles import ROLES, Role, RoleCounts
from twinflow_core.training.step import Batch, MicroBatch
from twinflow_core.training.twinflow_draws import StepDraws


def micro_batches(
    batch: Batch,
    draws: StepDraws,
    counts: RoleCounts,
    parts: int,
    whole: RoleCounts | None = None,
    weight: Tensor | None = None,
) -> list[MicroBatch]:
    """The step's rows in pieces of nearly one size and one mixture of roles, at most `parts` and none empty.

    Args:
        batch: rows laid out as `counts`.
        draws: the step's randomness.
        counts: rows by role.
        parts: at least 1; 1 gives the step as it is.
        whole: rows by role of all ranks, where these rows are one rank's share.
        weight: [B], see `MicroBatch`.
    """
    whole = whole or counts
    if parts == 1:
        return [MicroBatch(batch, draws, counts, whole, weight)]
    return [
        _piece(batch, draws, counts, torch.arange(part, counts.total, parts), whole, weight)
        for part in range(min(parts, counts.total))
    ]


def balanced_pieces(part: MicroBatch, costs: Mapping[Role, float], pieces: int) -> list[MicroBatch]:
    """Consecutive rows of a part in at most so many pieces of nearly one cost, none empty.

    Rows of one role stay together where they can: each piece then makes fewer calls, of more rows.

    Args:
        part: rows laid out as its counts.
        costs: of a row of each role that has rows, above 0.
        pieces: at least 1.
    """
    cost = torch.tensor([costs[role] for role in ROLES for _ in range(getattr(part.counts, role))])
    ends = cost.cumsum(0)
    # The piece that a row's middle falls into.
    piece = (ends - cost / 2) * pieces // ends[-1]
    return [
        _piece(part.batch, part.draws, part.counts, rows, part.whole, part.weight)
        for each in range(pieces)
        if len(rows := (piece == each).nonzero().flatten())
    ]


def _piece(
    batch: Batch,
    draws: StepDraws,
    counts: RoleCounts,
    rows: Tensor,
    whole: RoleCounts,
    weight: Tensor | None,
) -> MicroBatch:
    last = torch.tensor([getattr(counts, role) for role in ROLES]).cumsum(0)
    held = torch.bincount(torch.bucketize(rows, last, right=True), minlength=len(ROLES)).tolist()
    part = Batch(batch.x[rows], batch.conditioning[rows], batch.empty)
    own = None if weight is None else weight[rows]
    return MicroBatch(part, draws.of_rows(rows), RoleCounts(*held), whole, own)
