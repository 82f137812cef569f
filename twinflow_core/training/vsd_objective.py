"""Variational score distillation: a second network learns the fakes' velocity, the frozen base gives the real one.

The weights are DMD's (see `flow/distribution_matching.py`). Generator and fake score take turns by row: the shares
of `one_step` and `fake` are the rate of their updates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.flow.distribution_matching import distribution_matching_target
from twinflow_core.flow.losses import squared_error
from twinflow_core.flow.path import interpolate
from twinflow_core.flow.targets import adversarial_target
from twinflow_core.training.fakes import with_fakes
from twinflow_core.training.guidance import base_velocity
from twinflow_core.training.roles import Role
from twinflow_core.training.step import MicroBatch, Networks, StepLoss
from twinflow_core.training.step_metrics import RowMean


class Vsd:
    """Costs 4 forward-equivalents a fake row; 5 a one_step row, 6 with guidance."""

    roles: tuple[Role, ...] = ("one_step", "fake")

    def __init__(self, options: FinetuneParams) -> None:
        self.options = options

    def loss(self, networks: Networks, rows: MicroBatch, step: int) -> StepLoss:
        """Both networks' losses, each a sum over its rows over the whole step's rows."""
        means: dict[str, RowMean] = {}
        terms: list[Tensor] = []
        one_step = rows.counts.one_step
        if one_step:
            terms.append(self._generator(networks, rows))
            means["loss_one_step"] = rows.mean(terms[-1], slice(0, one_step))
        if rows.counts.fake:
            terms.append(self._fake_score(networks, rows))
            means["loss_fake"] = rows.mean(terms[-1], slice(one_step, rows.counts.total))
        loss = rows.weighted(torch.cat(terms)).sum() / rows.whole.total
        return StepLoss(loss, means)

    def _generator(self, networks: Networks, rows: MicroBatch) -> Tensor:
        here = slice(0, rows.counts.one_step)
        draws, conditioning = rows.draws, rows.batch.conditioning[here]
        x = draws.z[here] - networks.online(draws.z[here], draws.t[here], draws.r[here], conditioning)
        t = draws.rectify_t
        with torch.no_grad():
            x_t = interpolate(x, draws.rectify_z, t)
            assert networks.fake is not None
            v_fake = networks.fake(x_t, t, None, conditioning)
            v_real = base_velocity(networks, rows.batch, x_t, t, here, self.options.guidance)
            target = distribution_matching_target(x, x_t, t, v_real, v_fake)
        return squared_error(x, target) / 2

    def _fake_score(self, networks: Networks, rows: MicroBatch) -> Tensor:
        here = slice(rows.counts.total - rows.counts.fake, rows.counts.total)
        batch = with_fakes(networks.online, rows.batch, rows.draws)
        x, z, t = batch.x[here], rows.draws.z[here], rows.draws.t[here].abs()
        assert networks.fake is not None
        prediction = networks.fake(interpolate(x, z, t), t, None, batch.conditioning[here])
        return squared_error(prediction, adversarial_target(x, z))
