"""What goes wrong in the authors' code does not go wrong here; each test names the fault that it would find."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.training.by_hand import Formulas, make_step, options
from tests.training.test_by_hand import EVERY_ROLE, RECIPES
from tests.training.test_loop import data_of
from tests.training.test_twinflow_objective import (
    OPTIONS,
    SHAPE,
    counted_networks,
    make_batch,
    step,
)
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.errors import TwinflowError
from twinflow_core.params import load_params
from twinflow_core.training.draws import batch_rows
from twinflow_core.training.ema import effective_decay
from twinflow_core.training.loop import Resume, Training
from twinflow_core.training.objectives import make_objective
from twinflow_core.training.roles import RoleCounts, role_counts
from twinflow_core.training.step import MicroBatch
from twinflow_core.training.twinflow_draws import StepDraws, draw_step
from twinflow_core.training.twinflow_objective import Networks, twinflow_loss

REPOSITORY = Path(__file__).parents[2]


@given(st.integers(1, 9), st.integers(0, 40), st.integers(1, 4), st.sampled_from([0.0, 2.0]))
@settings(max_examples=60, deadline=None)
def test_any_batch_size_and_any_order(rows: int, index: int, order: int, guidance: float) -> None:
    """Theirs asserts at least four rows, rounds six rows to no fakes, and crashes at orders that it offers."""
    networks, online, _ = counted_networks()
    options = OPTIONS.model_copy(update={"order": order, "guidance": guidance})
    result = step(networks, make_batch(rows), role_counts(options.shares, index, rows), options)
    result.loss.backward()
    assert torch.isfinite(result.loss)
    assert online.weight.grad is not None
    assert torch.isfinite(online.weight.grad)


def test_equal_times_are_finite_without_masking() -> None:
    """Theirs divides by t - r = 0 and hides the NaN behind nan_to_num on the gradients."""
    networks, online, _ = counted_networks()
    counts = RoleCounts(one_step=0, near=2, any=2, fake=0)
    drawn = draw_step(0, 0, counts, SHAPE)
    draws = StepDraws(**{field.name: getattr(drawn, field.name) for field in fields(drawn)} | {"r": drawn.t})
    result = twinflow_loss(networks, MicroBatch(make_batch(4), draws, counts, counts), OPTIONS)
    result.loss.backward()
    assert torch.isfinite(result.loss)
    assert torch.isfinite(online.weight.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_tensor_of_the_caller_is_written_to(recipe: str) -> None:
    """Theirs writes fakes into the caller's latents and minus signs into its times."""
    chosen = options(**RECIPES[recipe])
    given = make_step(chosen, EVERY_ROLE)
    batch, draws = given.batch, given.draws
    prompts = [batch.conditioning.pooled, batch.conditioning.prompt_embeds, batch.empty.pooled]
    given_to_it = [batch.x, *prompts, *(getattr(draws, field.name) for field in fields(draws))]
    versions = [tensor._version for tensor in given_to_it]
    given.loss(Formulas.make(), chosen).loss.backward()
    assert [tensor._version for tensor in given_to_it] == versions


def test_no_global_random_state_is_read_or_moved() -> None:
    """Theirs saves and rewinds CUDA's generator around every call, which also fails without CUDA."""
    networks, _, _ = counted_networks()
    counts = role_counts(OPTIONS.shares, 0, 8)
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        losses.append(step(networks, make_batch(8), counts).metrics.loss)
        assert torch.equal(torch.get_rng_state(), before)
    assert losses[0] == losses[1]


def test_the_frozen_base_is_asked_at_the_time_of_its_input() -> None:
    """Theirs calls the frozen teacher of the LoRA variant with t / 2."""
    data, asked = torch.tensor(0.25), []

    def base(x_t: Tensor, t: Tensor, r: Tensor | None, conditioning: Conditioning) -> Tensor:
        assert r is None
        asked.append(t)
        # All latents are 0.25 and all noise 1, so the state itself says at which time it lies.
        assert torch.allclose(x_t[:, 0, 0, 0], t + (1 - t) * data, atol=1e-6)
        return torch.ones_like(x_t) - data

    def online(x_t: Tensor, t: Tensor, r: Tensor | None, conditioning: Conditioning) -> Tensor:
        return torch.ones_like(x_t) - data

    counts = RoleCounts(one_step=2, near=2, any=2, fake=2)
    drawn = draw_step(0, 0, counts, SHAPE)
    noise = {name: torch.ones_like(getattr(drawn, name)) for name in ("z", "fake_z", "rectify_z")}
    times = {name: getattr(drawn, name) for name in ("t", "r", "rectify_t")}
    batch = make_batch(8)
    batch.x.fill_(float(data))
    rows = MicroBatch(batch, StepDraws(**noise, **times), counts, counts)
    twinflow_loss(Networks(online, online, base), rows, OPTIONS)
    assert len(torch.cat(asked)) >= 2 * (counts.near + counts.any + counts.one_step)


@pytest.mark.parametrize("recipe", ["the authors'", "shared fakes", "bundled"])
def test_a_fake_is_mixed_with_fresh_noise(recipe: str) -> None:
    """Their tutorial mixes a fake with the noise that it came from, which the velocity of eq. 5 does not allow.

    The network's fakes are half the noise that they come from, so what it is asked at tells both noises. That the
    draws are independent of each other is found in `test_twinflow_draws.py`.
    """
    chosen = options(**RECIPES[recipe])
    given = make_step(chosen, EVERY_ROLE)
    draws, fakes = given.draws, slice(-given.counts.fake, None)
    asked: list[tuple[Tensor, Tensor]] = []

    def network(x_t: Tensor, t: Tensor, r: Tensor | None, conditioning: Conditioning) -> Tensor:
        asked.append((x_t, t))
        return 0.5 * x_t

    own = network if chosen.has_fake_score else None
    rows = MicroBatch(given.batch, draws, given.counts, given.counts)
    make_objective(chosen).loss(Networks(network, network, network, own), rows, 0)
    source = torch.arange(given.counts.fake) % given.counts.one_step
    started = draws.z[source] if chosen.fakes == "shared" else draws.fake_z
    t = draws.t[fakes].abs().view(-1, 1, 1, 1)
    expected = t * draws.z[fakes] + (1 - t) * started / 2
    at_fakes = [x for x, times in asked if torch.equal(times[fakes].abs(), draws.t[fakes].abs())]
    assert any(torch.allclose(x[fakes], expected) for x in at_fakes)
    assert not torch.isin(started, draws.z[fakes]).any()


def test_the_average_ticks_once_a_step_however_many_parts_it_has(tiny_pipeline: Path, tmp_path: Path) -> None:
    """Theirs ticks once a micro-batch."""
    chosen = options(steps=2, batch_size=4, accumulation=4, learning_rate=1e-2)
    backbone = load_backbone(tiny_pipeline)
    training = Training(backbone.velocity, data_of(backbone), chosen, Resume(tmp_path, "k"))
    expected = flat(training.online)
    for index in range(2):
        training._step(index)
        decay = effective_decay(chosen.ema_decay, index)
        assert 0 < decay < 1
        expected = decay * expected + (1 - decay) * flat(training.online)
    assert torch.allclose(flat(training.averaged), expected, atol=1e-6)
    assert float((expected - flat(training.online)).abs().max()) > 1e-4


def flat(network: torch.nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_every_epoch_has_an_order_of_its_own() -> None:
    """Theirs never reaches its sampler's epoch, so that all epochs come in one order."""
    first, second = batch_rows(0, 0, 64, 64), batch_rows(0, 1, 64, 64)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("untrained", [{"shares": {"one_step": 1, "near": 1}}, {"adversarial_weight": 0.0}])
def test_rectification_by_an_untrained_fake_branch_is_refused(
    untrained: dict[str, object], tmp_path: Path
) -> None:
    """Theirs runs it, unless some lines are commented out by hand."""
    document = yaml.safe_load((REPOSITORY / "tests/params.tiny.yaml").read_text())
    document["finetune"] |= untrained
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(TwinflowError, match="nothing trains"):
        load_params(path)
    document["finetune"]["rectify_weight"] = 0.0
    path.write_text(yaml.safe_dump(document))
    assert load_params(path).finetune.rectify_weight == 0
