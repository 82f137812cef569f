"""The objectives by name. Each is a loss of one micro-batch; one may bring weights of its own to train."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from torch import nn

from twinflow_core.backbones.velocity import Velocity
from twinflow_core.errors import TwinflowError
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.training.fake_score import make_fake_score
from twinflow_core.training.flow_matching_objective import FlowMatching
from twinflow_core.training.meanflow_objective import MeanFlow
from twinflow_core.training.roles import ROLES, Role
from twinflow_core.training.step import MicroBatch, Networks, StepLoss
from twinflow_core.training.twinflow_objective import twinflow_loss
from twinflow_core.training.vsd_objective import Vsd


class Objective(Protocol):
    """What the training loop needs of an objective; `roles` are those its rows play, other shares do not count."""

    roles: tuple[Role, ...]

    @property
    def own(self) -> nn.Module | None:
        """Weights that it trains beside the network."""
        ...

    def loss(self, networks: Networks, rows: MicroBatch, step: int) -> StepLoss:
        """The loss of these rows at a 0-based step, as their part of the mean over the whole step."""
        ...


class TwinFlow:
    """Recursive consistency, self-adversarial and rectification terms.

    Args:
        options: the finetune section.
        fake_score: a network that learns the fakes' velocity, or None: the trained one does, at negative times.
    """

    roles: tuple[Role, ...] = ROLES

    def __init__(self, options: FinetuneParams, fake_score: Velocity | None = None) -> None:
        self.options = options
        self.own = fake_score

    def loss(self, networks: Networks, rows: MicroBatch, step: int) -> StepLoss:
        """`twinflow_loss`, with rectification's weight rising over its warm-up."""
        rise = min(1.0, (step + 1) / self.options.rectify_warmup) if self.options.rectify_warmup else 1.0
        weight = self.options.rectify_weight * rise
        options = self.options.model_copy(update={"rectify_weight": weight})
        networks = replace(networks, fake=self.own)
        return twinflow_loss(networks, rows.batch, rows.draws, rows.counts, options, rows.whole, rows.weight)


class Rcgm:
    """Recursive consistency alone: TwinFlow without fakes and rectification."""

    roles: tuple[Role, ...] = ("one_step", "near", "any")
    own: nn.Module | None = None

    def __init__(self, options: FinetuneParams) -> None:
        self.options = options.model_copy(update={"rectify_weight": 0.0, "one_step_target": "recursive"})

    def loss(self, networks: Networks, rows: MicroBatch, step: int) -> StepLoss:
        """`twinflow_loss` without its second half."""
        return twinflow_loss(
            networks, rows.batch, rows.draws, rows.counts, self.options, rows.whole, rows.weight
        )


def needs_base(options: FinetuneParams) -> bool:
    """Whether the objective asks a frozen copy of the base."""
    return options.real_velocity == "base" or options.objective == "vsd"


def make_objective(options: FinetuneParams, base: Velocity | None) -> Objective:
    """The objective that the options name, with the network that it brings to be trained, if any.

    Args:
        options: the finetune section.
        base: the frozen base, where `needs_base`.

    Raises:
        TwinflowError: no role of the objective has a share.
    """
    fake_score = make_fake_score(base, options) if base is not None and options.has_fake_score else None
    return objective_with(options, fake_score)


def objective_with(options: FinetuneParams, fake_score: Velocity | None) -> Objective:
    """The objective that the options name.

    Args:
        options: the finetune section.
        fake_score: the network that learns the fakes' velocity, where the options have one.

    Raises:
        TwinflowError: no role of the objective has a share.
    """
    objective = _by_name(options, fake_score)
    if not any(options.shares.get(role, 0.0) > 0 for role in objective.roles):
        raise TwinflowError(
            f"The objective {options.objective} has no row to train on.",
            where="params.yaml: finetune.shares",
            fix=f"Give one of these roles a positive share: {', '.join(objective.roles)}.",
        )
    return objective


def _by_name(options: FinetuneParams, fake_score: Velocity | None) -> Objective:
    if options.objective == "vsd":
        assert fake_score is not None
        return Vsd(options, fake_score)
    if options.objective == "twinflow":
        return TwinFlow(options, fake_score)
    if options.objective == "rcgm":
        return Rcgm(options)
    return FlowMatching(options) if options.objective == "flow_matching" else MeanFlow(options)
