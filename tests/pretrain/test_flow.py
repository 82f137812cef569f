"""The denoiser's pretraining: the optimiser, the forward pass, the draws, and resuming."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from twinflow_core.data.shapes_world import Scene, ShapeObject
from twinflow_core.pretrain.denoiser import FeatureDenoiser, build_denoiser
from twinflow_core.pretrain.flow import FlowTrainer, rate_at
from twinflow_core.pretrain.flow_data import FlowData, Prompts, draw_batch, layout_of
from twinflow_core.pretrain.muon import Muon, orthogonalise
from twinflow_core.pretrain.recipe import FlowRecipe

TINY = FlowRecipe(layers=2, heads=2, head_width=8, batch=8, steps=6, decay=2, warmup=2, layout_block=0)


@pytest.fixture(scope="module")
def data() -> FlowData:
    draws = torch.Generator().manual_seed(0)
    return FlowData(
        latents=torch.randn(20, 4, 8, 8, generator=draws),
        layouts=torch.randint(0, 4, (20, 64, 2), generator=draws).byte(),
        caption_rows=torch.randint(0, 5, (20,), generator=draws),
        prompts=Prompts(torch.randn(6, 12, 16, generator=draws), torch.randn(6, 16, generator=draws)),
    )


def test_orthogonalise_brings_singular_values_near_one() -> None:
    stack = torch.randn(3, 16, 40, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(stack))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_muon_minimises_a_quadratic() -> None:
    torch.manual_seed(0)
    target, weight = torch.randn(12, 6), torch.nn.Parameter(torch.zeros(12, 6))
    optimizer = Muon([weight], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (weight - target).square().sum().backward()
        optimizer.step()
    assert (weight - target).square().mean() < 0.02 * target.square().mean()


@pytest.mark.parametrize("patch", [1, 2])
def test_the_forward_pass_is_the_transformers_own(patch: int) -> None:
    torch.manual_seed(0)
    model = build_denoiser(TINY.model_copy(update={"patch": patch}), 4, 16)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, t = torch.randn(3, 4, 8, 8), torch.rand(3)
    tokens, pooled = torch.randn(3, 13, 16), torch.randn(3, 16)
    velocity, layout = FeatureDenoiser(model, 0)(x, t, tokens, pooled)
    own = model(x, encoder_hidden_states=tokens, pooled_projections=pooled, timestep=1000 * t).sample
    torch.testing.assert_close(velocity, own)
    assert layout.shape == (3, 64, 13)


def test_layout_is_in_row_order() -> None:
    grid = layout_of(Scene((ShapeObject("square", "black", 9, x=3, y=20),))).reshape(8, 8, 2)
    assert (grid[5:7, 1:3] == (2, 8)).all()
    assert grid.any(axis=2).sum() == 4


def test_draws_depend_on_seed_and_step_alone(data: FlowData) -> None:
    one, same, other = (draw_batch(data, TINY, 0, step) for step in (3, 3, 4))
    assert torch.equal(one.z, same.z)
    assert torch.equal(one.t, same.t)
    assert one.z.shape != other.z.shape or not torch.equal(one.z, other.z)


def test_times_fill_the_unit_interval_and_lean_to_noise(data: FlowData) -> None:
    times = torch.cat([draw_batch(data, TINY, 1, step).t for step in range(300)])
    assert times.min() >= 0
    assert times.max() <= 1
    s = TINY.time_shift
    mean = s / (s - 1) - s * np.log(s) / (s - 1) ** 2
    assert times.mean().item() == pytest.approx(mean, abs=0.01)


@given(st.integers(0, 8999))
def test_rates_stay_in_range_and_end_at_nothing(step: int) -> None:
    recipe = FlowRecipe(steps=9000, decay=1500, warmup=100)
    assert 0 < rate_at(step, recipe) <= 1
    assert rate_at(9000, recipe) == 0


def test_a_resumed_run_is_the_run_that_never_stopped(data: FlowData, tmp_path: Path) -> None:
    def quiet(line: str) -> None: ...

    whole = FlowTrainer(TINY, data, seed=0)
    whole.run(None, quiet, lambda model, step: None)
    first = FlowTrainer(TINY, data, seed=0)
    for _ in range(3):
        first.train_step()
    first.save(tmp_path / "flow.pt")
    second = FlowTrainer(TINY, data, seed=0)
    second.restore(tmp_path / "flow.pt")
    second.run(None, quiet, lambda model, step: None)
    for a, b in zip(whole.ema.parameters(), second.ema.parameters(), strict=True):
        assert torch.equal(a, b)
