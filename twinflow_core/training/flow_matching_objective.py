"""Flow matching with guidance trained in: the velocity alone, r = t. The ceiling of many steps, the floor of one."""

from __future__ import annotations

from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.flow.losses import robust, squared_error
from twinflow_core.flow.path import interpolate
from twinflow_core.flow.targets import flow_matching_target
from twinflow_core.training.guidance import guided_velocity
from twinflow_core.training.roles import Role
from twinflow_core.training.step import MicroBatch, Networks, StepLoss


class FlowMatching:
    """L = E d(F(x_t, t, t), v*). Costs 3 forward-equivalents a row, 5 with guidance."""

    roles: tuple[Role, ...] = ("near",)

    def __init__(self, options: FinetuneParams) -> None:
        self.options = options

    def loss(self, networks: Networks, rows: MicroBatch, step: int) -> StepLoss:
        """All rows at r = t, whatever their r was drawn as."""
        batch, t = rows.batch, rows.draws.t
        x_t = interpolate(batch.x, rows.draws.z, t)
        v = flow_matching_target(batch.x, rows.draws.z)
        target = guided_velocity(networks, batch, x_t, v, t, slice(0, len(t)), self.options.guidance)
        prediction = networks.online(x_t, t, t, batch.conditioning)
        loss = rows.weighted(robust(squared_error(prediction, target))).sum() / rows.whole.total
        return StepLoss(loss, {})
