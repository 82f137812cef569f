"""The objective's loss on held-out rows, with the same rows and draws every time, of the averaged network.

It is computed in as many parts as a training step, so that it needs no more memory than a step does.
"""

from __future__ import annotations

import torch

from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.training.bucket_schedule import Turn
from twinflow_core.training.encoded import EncodedData
from twinflow_core.training.objectives import Objective, counts_of_step
from twinflow_core.training.rank_rows import rows_here
from twinflow_core.training.ranks import Ranks
from twinflow_core.training.step import Networks
from twinflow_core.training.twinflow_draws import draw_step

# No training step has this number, so none shares its draws.
STEP = -1


@torch.no_grad()
def validation_loss(
    objective: Objective,
    networks: Networks,
    data: EncodedData,
    options: FinetuneParams,
    device: torch.device,
    ranks: Ranks,
) -> float:
    """The loss of one batch of every bucket, weighted by their rows; comparable from step to step of a run.

    Args:
        objective: as in training; its warm-ups count as over.
        networks: the averaged network is the one in training's place, too: it is judged, and gives its own targets.
        data: the held-out rows.
        options: batch size, its parts, seed and shares.
        device: where the networks are.
        ranks: who shares the batch; all ask together and hear the same.
    """
    counts = counts_of_step(objective, options, 0)
    lost = 0.0
    for bucket in data.buckets:
        rows = Turn(bucket, 0).rows(options.seed, options.batch_size)
        draws = draw_step(
            options.seed, STEP, counts, bucket.shape, options.data_free, options.rectify_t_power
        )
        share = len(bucket.rows) / len(data)
        for part in rows_here(
            data, rows, data.caption[rows], draws, counts, ranks, device, options.accumulation
        ):
            # Each part's loss is its share of a mean over all rows.
            lost += share * objective.loss(networks, part, options.steps).metrics.loss
    return sum(each["loss"] for each in ranks.gather({"loss": lost}))
