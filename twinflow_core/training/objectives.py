"""The objectives by name. Each is a loss of one micro-batch."""

from __future__ import annotations

from typing import Protocol

from twinflow_core.errors import TwinflowError
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.training.flow_matching_objective import FlowMatching
from twinflow_core.training.meanflow_objective import MeanFlow
from twinflow_core.training.roles import ROLES, Role, RoleCounts, role_counts
from twinflow_core.training.step import MicroBatch, Networks, StepLoss
from twinflow_core.training.twinflow_objective import twinflow_loss
from twinflow_core.training.vsd_objective import Vsd


class Objective(Protocol):
    """What the training loop needs of an objective; `roles` are those its rows play, other shares do not count."""

    roles: tuple[Role, ...]

    def loss(self, networks: Networks, rows: MicroBatch, step: int) -> StepLoss:
        """The loss of these rows at a 0-based step, as their part of the mean over the whole step."""
        ...


class TwinFlow:
    """Recursive consistency, self-adversarial and rectification terms."""

    roles: tuple[Role, ...] = ROLES

    def __init__(self, options: FinetuneParams) -> None:
        self.options = options

    def loss(self, networks: Networks, rows: MicroBatch, step: int) -> StepLoss:
        """`twinflow_loss`, with rectification's weight rising over its warm-up."""
        rise = min(1.0, (step + 1) / self.options.rectify_warmup) if self.options.rectify_warmup else 1.0
        weight = self.options.rectify_weight * rise
        options = self.options.model_copy(update={"rectify_weight": weight})
        return twinflow_loss(networks, rows, options)


class Rcgm:
    """Recursive consistency alone: TwinFlow without fakes and rectification."""

    roles: tuple[Role, ...] = ("one_step", "near", "any")

    def __init__(self, options: FinetuneParams) -> None:
        self.options = options.model_copy(update={"rectify_weight": 0.0, "one_step_target": "recursive"})

    def loss(self, networks: Networks, rows: MicroBatch, step: int) -> StepLoss:
        """`twinflow_loss` without its second half."""
        return twinflow_loss(networks, rows, self.options)


def make_objective(options: FinetuneParams) -> Objective:
    """The objective that the options name.

    Raises:
        TwinflowError: no role of the objective has a share.
    """
    objective = _by_name(options)
    if not any(options.shares.get(role, 0.0) > 0 for role in objective.roles):
        raise TwinflowError(
            f"The objective {options.objective} has no row to train on.",
            where="params.yaml: finetune.shares",
            fix=f"Give one of these roles a positive share: {', '.join(objective.roles)}.",
        )
    return objective


def counts_of_step(objective: Objective, options: FinetuneParams, step: int) -> RoleCounts:
    """How many rows of a 0-based step each role has; shares of roles that the objective does not play do not count."""
    played = {role: options.shares.get(role, 0.0) for role in objective.roles}
    return role_counts(played, step, options.batch_size)


def _by_name(options: FinetuneParams) -> Objective:
    if options.objective == "vsd":
        return Vsd(options)
    if options.objective == "twinflow":
        return TwinFlow(options)
    if options.objective == "rcgm":
        return Rcgm(options)
    return FlowMatching(options) if options.objective == "flow_matching" else MeanFlow(options)
