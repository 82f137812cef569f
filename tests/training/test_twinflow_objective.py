"""One step of the objective: what it costs, what it leaves alone, what it does at its edges."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.training.execution import Twins, make_networks
from twinflow_core.training.roles import ROLES, RoleCounts, role_counts
from twinflow_core.training.twinflow_draws import draw_step
from twinflow_core.training.twinflow_objective import Batch, MicroBatch, Networks, StepLoss, twinflow_loss

SHAPE = (2, 4, 4)
OPTIONS = FinetuneParams(
    steps=1,
    batch_size=8,
    learning_rate=1e-3,
    betas=(0.9, 0.95),
    warmup_steps=0,
    decay_steps=0,
    clip_norm=1.0,
    ema_decay=0.99,
    order=2,
    delta=0.01,
    guidance=0.8,
    real_velocity="online",
    rectify_weight=0.5,
    adversarial_weight=1.0,
    shares=dict.fromkeys(ROLES, 1.0),
    caption_dropout=0.0,
    seed=0,
    log_every=1,
    checkpoint_every=1,
)


@dataclass
class Counted:
    """A linear network that counts the rows it is asked for, with and without gradient."""

    weight: Tensor
    rows: int = 0
    rows_with_gradient: int = 0
    earliest: float = 1.0

    def __call__(self, x_t: Tensor, t: Tensor, r: Tensor | None, conditioning: Conditioning) -> Tensor:
        assert len(x_t) == len(t) == len(conditioning)
        self.earliest = min(self.earliest, float(t.min()))
        if torch.is_grad_enabled():
            self.rows_with_gradient += len(x_t)
        else:
            self.rows += len(x_t)
        prompt = conditioning.pooled.mean(dim=1).view(-1, 1, 1, 1)
        return self.weight * x_t + prompt + (0.1 * t).view(-1, 1, 1, 1)


def make_batch(rows: int) -> Batch:
    generator = torch.Generator().manual_seed(3)
    return Batch(
        torch.randn((rows, *SHAPE), generator=generator),
        Conditioning(torch.zeros(rows, 1, 1), torch.randn((rows, 3), generator=generator)),
        Conditioning(torch.zeros(1, 1, 1), torch.zeros(1, 3)),
    )


def step(networks: Networks, batch: Batch, counts: RoleCounts, options: FinetuneParams = OPTIONS) -> StepLoss:
    rows = MicroBatch(batch, draw_step(0, 0, counts, SHAPE), counts, counts)
    return twinflow_loss(networks, rows, options)


def counted_networks() -> tuple[Networks, Counted, Counted]:
    online = Counted(torch.tensor(0.5, requires_grad=True))
    averaged = Counted(torch.tensor(0.4))
    return Networks(online, averaged, None), online, averaged


def test_a_step_costs_no_more_than_its_targets_need() -> None:
    networks, online, averaged = counted_networks()
    counts = role_counts(OPTIONS.shares, 0, 16)
    step(networks, make_batch(16), counts)
    equivalents = 3 * online.rows_with_gradient + online.rows + averaged.rows
    assert equivalents / 16 == 6.25
    assert online.rows_with_gradient == 16


class Linear(torch.nn.Module):
    """`Counted` without its counts, as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, x_t: Tensor, t: Tensor, r: Tensor | None, conditioning: Conditioning) -> Tensor:
        prompt = conditioning.pooled.mean(dim=1).view(-1, 1, 1, 1)
        return self.weight * x_t + prompt + (0.1 * t).view(-1, 1, 1, 1)


def test_compiled_networks_take_the_same_step_with_a_base(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = partial(torch.compile, backend="eager")
    monkeypatch.setattr("twinflow_core.training.execution.torch.compile", compiled)
    options = OPTIONS.model_copy(update={"real_velocity": "base"})
    losses = []
    for asked in (False, True):
        network: Any = Linear()
        networks = make_networks(network, Twins(network, network, network), asked)
        losses.append(step(networks, make_batch(8), RoleCounts(2, 2, 2, 2), options).loss)
    assert losses[0] == losses[1]


def test_without_guidance_no_unconditional_row_is_computed() -> None:
    networks, online, averaged = counted_networks()
    counts = role_counts(OPTIONS.shares, 0, 16)
    step(networks, make_batch(16), counts, OPTIONS.model_copy(update={"guidance": 0.0}))
    assert (3 * online.rows_with_gradient + online.rows + averaged.rows) / 16 == 5.25


def test_only_fakes_is_flow_matching_on_the_models_own_samples() -> None:
    networks, online, _ = counted_networks()
    counts = RoleCounts(one_step=0, near=0, any=0, fake=4)
    batch, draws = make_batch(4), draw_step(0, 0, counts, SHAPE)
    with torch.no_grad():
        fakes = draws.fake_z - online(draws.fake_z, torch.ones(4), torch.zeros(4), batch.conditioning)
        mixed = (-draws.t).view(-1, 1, 1, 1)
        x_t = mixed * draws.z + (1 - mixed) * fakes
        error = online(x_t, draws.t, draws.r, batch.conditioning) - (draws.z - fakes)
        rmse = error.square().flatten(1).mean(dim=1).sqrt().mean()
    assert step(networks, batch, counts).metrics.loss == pytest.approx(float(rmse), rel=1e-3)


def test_rectification_vanishes_where_both_branches_agree() -> None:
    def even(x_t: Tensor, t: Tensor, r: Tensor | None, conditioning: Conditioning) -> Tensor:
        return x_t * t.abs().view(-1, 1, 1, 1)

    counts = RoleCounts(one_step=4, near=0, any=0, fake=0)
    result = step(Networks(even, even, None), make_batch(4), counts)
    assert result.metrics.values["velocity_difference"] == 0
    assert result.metrics.values["rectify"] == 0


def test_a_frozen_base_gives_the_real_velocity_without_target_time() -> None:
    asked: list[Tensor | None] = []

    def base(x_t: Tensor, t: Tensor, r: Tensor | None, conditioning: Conditioning) -> Tensor:
        asked.append(r)
        return x_t

    networks, _, averaged = counted_networks()
    counts = role_counts(OPTIONS.shares, 0, 8)
    step(Networks(networks.online, averaged, base), make_batch(8), counts)
    assert asked
    assert all(r is None for r in asked)
