"""MeanFlow as a training objective, its derivative by one more evaluation or by forward-mode differentiation."""

from __future__ import annotations

from torch import Tensor

from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.flow.losses import robust, squared_error
from twinflow_core.flow.meanflow import backward_difference, forward_mode, meanflow_target
from twinflow_core.flow.path import interpolate
from twinflow_core.flow.targets import flow_matching_target
from twinflow_core.training.guidance import guided_velocity
from twinflow_core.training.roles import Role
from twinflow_core.training.step import MicroBatch, Networks, StepLoss


class MeanFlow:
    """L = E d(F, v* - (t - r) dF/dt). Costs 4 forward-equivalents a row, 6 with guidance."""

    roles: tuple[Role, ...] = ("one_step", "near", "any")

    def __init__(self, options: FinetuneParams) -> None:
        self.options = options

    def loss(self, networks: Networks, rows: MicroBatch, step: int) -> StepLoss:
        """Every row at its drawn (t, r); the derivative is the online network's, without gradient."""
        batch, draws = rows.batch, rows.draws
        t, r, everything = draws.t, draws.r, slice(0, rows.counts.total)
        x_t = interpolate(batch.x, draws.z, t)
        instant = flow_matching_target(batch.x, draws.z)
        v = guided_velocity(networks, batch, x_t, instant, t, everything, self.options.guidance)

        def online(x_i: Tensor, t_i: Tensor, r_i: Tensor) -> Tensor:
            return networks.online(x_i, t_i, r_i, batch.conditioning)

        if self.options.meanflow.derivative == "forward_mode":
            prediction, derivative = forward_mode(online, x_t, t, r, v)
        else:
            prediction = online(x_t, t, r)
            step_size = self.options.meanflow.step
            derivative = backward_difference(online, prediction.detach(), x_t, t, r, v, step_size)
        target = meanflow_target(v, derivative, t, r)
        loss = rows.weighted(robust(squared_error(prediction, target))).sum() / rows.whole.total
        size = derivative.square().flatten(1).mean(dim=1).sqrt()
        return StepLoss(loss, {"derivative": rows.mean(size, everything)})
