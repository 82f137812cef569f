"""Which rows of a step's global batch a rank computes: of every role its share, and as many as each other rank.

FSDP gathers weights in every forward call, so all ranks must make the same calls. Therefore all have the same
number of rows of each role, rounded up; what a rank lacks is filled with a row that has no weight in the loss.
The rank with the most rows would have been waited for anyway, so that filling costs memory and no time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twinflow_core.training.encoded import EncodedData
from twinflow_core.training.micro_batches import micro_batches
from twinflow_core.training.ranks import Ranks
from twinflow_core.training.roles import ROLES, RoleCounts
from twinflow_core.training.step import Batch, MicroBatch
from twinflow_core.training.twinflow_draws import StepDraws


@dataclass(frozen=True)
class Share:
    """A rank's part of a step.

    Attributes:
        rows: int64 [b], positions in the global batch, laid out as `counts`.
        weight: [b], 1 for a row of its own and 0 for one that fills.
        counts: rows by role, the same on every rank.
        whole: rows by role of the global batch.
    """

    rows: Tensor
    weight: Tensor
    counts: RoleCounts
    whole: RoleCounts


def share_of(whole: RoleCounts, ranks: Ranks) -> Share:
    """Every `ranks.count`-th row of each role, from the rank's own number on.

    Args:
        whole: rows by role of the global batch, which is laid out in this order.
        ranks: this process and how many there are.
    """
    rows: list[Tensor] = []
    weight: list[Tensor] = []
    held: dict[str, int] = {}
    first = 0
    for role in ROLES:
        there = getattr(whole, role)
        held[role] = -(-there // ranks.count)
        mine = ranks.rank + ranks.count * torch.arange(held[role])
        own = mine < there
        rows.append(first + torch.where(own, mine, 0))
        weight.append(own.float())
        first += there
    return Share(torch.cat(rows), torch.cat(weight), RoleCounts(**held), whole)


def rows_here(
    data: EncodedData,
    rows: Tensor,
    captions: Tensor,
    draws: StepDraws,
    counts: RoleCounts,
    ranks: Ranks,
    device: torch.device,
    parts: int = 1,
) -> list[MicroBatch]:
    """What this rank computes of a global batch, in the parts that are computed at once.

    Args:
        data: the encoded rows.
        rows: int64 [B], the dataset rows of the global batch.
        captions: int64 [B], the caption of each.
        draws: the randomness of the global batch.
        counts: rows by role of the global batch.
        ranks: a process that trains alone takes the batch as it is.
        device: where the rows go.
        parts: how many micro-batches; the same for every rank.
    """
    held, weight = counts, None
    if ranks.mesh is not None:
        share = share_of(counts, ranks)
        rows, captions, draws = rows[share.rows], captions[share.rows], draws.of_rows(share.rows)
        held, weight = share.counts, share.weight.to(device)
    batch = Batch(
        data.latents[rows].to(device), data.conditioning[captions].to(device), data.empty.to(device)
    )
    return micro_batches(batch, draws.to(device), held, parts, counts, weight)
