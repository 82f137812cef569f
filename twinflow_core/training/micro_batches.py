"""A step's rows in parts that are computed one after the other, so that memory holds one part at a time.

The rows of a step are one batch whatever the number of parts: roles, draws and means are those of the whole step,
and the parts' gradients add up to its gradient. With `fakes: shared` they do not: a fake is one of the one_step images
of its own part, and in a part without any it is made from noise of its own.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from torch import Tensor

from twinflow_core.training.roles import ROLES, RoleCounts
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
    """The step's rows in consecutive pieces of nearly one size, at most `parts` and none empty.

    Args:
        batch: rows laid out as `counts`.
        draws: the step's randomness.
        counts: rows by role.
        parts: at least 1; 1 gives the step as it is.
        whole: rows by role of all ranks, where these rows are one rank's share.
        weight: [B], see `MicroBatch`.
    """
    bounds = [counts.total * part // parts for part in range(parts + 1)]
    return [
        _piece(batch, draws, counts, slice(start, stop), whole or counts, weight)
        for start, stop in pairwise(bounds)
        if stop > start
    ]


def _piece(
    batch: Batch, draws: StepDraws, counts: RoleCounts, rows: slice, whole: RoleCounts, weight: Tensor | None
) -> MicroBatch:
    held: dict[str, int] = {}
    first = 0
    for role in ROLES:
        last = first + getattr(counts, role)
        held[role] = max(0, min(last, rows.stop) - max(first, rows.start))
        first = last
    one_step = slice(rows.start, min(rows.stop, counts.one_step))
    unmade = counts.total - len(draws.fake_z)
    made = slice(max(0, rows.start - unmade), max(0, rows.stop - unmade))
    drawn = replace(
        draws,
        z=draws.z[rows],
        t=draws.t[rows],
        r=draws.r[rows],
        fake_z=draws.fake_z[made],
        rectify_z=draws.rectify_z[one_step],
        rectify_t=draws.rectify_t[one_step],
    )
    part = Batch(batch.x[rows], batch.conditioning[rows], batch.empty)
    own = None if weight is None else weight[rows]
    return MicroBatch(part, drawn, RoleCounts(**held), whole, own)
