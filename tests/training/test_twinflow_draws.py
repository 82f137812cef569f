"""The draws of a step: each role's times, the shapes, and that no draw says anything about another."""

from __future__ import annotations

from dataclasses import fields
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from twinflow_core.training.roles import RoleCounts
from twinflow_core.training.twinflow_draws import StepDraws, draw_step

MANY = 4000
counted = st.builds(RoleCounts, *[st.integers(0, 5)] * 4).filter(lambda counts: counts.total > 0)


def by_role(values: Tensor, counts: RoleCounts) -> tuple[Tensor, ...]:
    return values.split([counts.one_step, counts.near, counts.any, counts.fake])


@given(st.integers(0, 999), st.integers(-1, 999), counted, st.booleans())
@settings(max_examples=60, deadline=None)
def test_times_and_shapes_are_those_of_each_role(
    seed: int, step: int, counts: RoleCounts, data_free: bool
) -> None:
    draws = draw_step(seed, step, counts, (3, 2, 1), data_free)
    (one, near, some, fake), (to_zero, close, below, same) = (
        by_role(times, counts) for times in (draws.t, draws.r)
    )
    assert torch.equal(one, torch.ones(counts.one_step))
    assert torch.equal(to_zero, torch.zeros(counts.one_step))
    for times in (near, some, -fake, draws.rectify_t):
        assert ((times >= 1e-3) & (times < 1)).all()
    assert ((close <= near) & (close >= 0.95 * near - 1e-7)).all()
    assert ((below <= some) & (below >= 0)).all()
    assert torch.equal(same, fake)
    made = counts.total if data_free else counts.fake
    lengths = {"z": counts.total, "fake_z": made, "rectify_z": counts.one_step}
    assert {name: getattr(draws, name).shape for name in lengths} == {
        name: (rows, 3, 2, 1) for name, rows in lengths.items()
    }
    assert len(draws.rectify_t) == counts.one_step


@pytest.mark.parametrize("power", [0.5, 1.5, 2.0])
def test_the_times_of_rectification_have_the_density_of_their_power(power: float) -> None:
    counts = RoleCounts(MANY, 0, 0, 0)
    plain, drawn = (draw_step(3, 1, counts, (1, 1, 1), rectify_t_power=p) for p in (1.0, power))
    times = drawn.rectify_t.double().sort().values
    # Its distribution function t^(1/p), where no time was held at 1e-3; Kolmogorov's bound at one in a thousand.
    expected = (torch.arange(MANY) + 0.5) / MANY
    free = times > 1.001e-3
    assert (times[free] ** (1 / power) - expected[free]).abs().max() < 1.95 / MANY**0.5
    assert times.min() >= 1e-3
    assert times.max() < 1
    for name in (field.name for field in fields(drawn)):
        assert torch.equal(getattr(drawn, name), getattr(plain, name)) == (name != "rectify_t")


def uniforms(draws: StepDraws, counts: RoleCounts) -> dict[str, Tensor]:
    """What should be uniform in [0, 1), each over the same number of rows."""
    _, near, some, fake = by_role(draws.t, counts)
    _, close, below, _ = by_role(draws.r, counts)
    return {
        "t of near": near,
        "t of any": some,
        "t of fake": -fake,
        "gap of near over 0.05 t": (near - close) / (0.05 * near),
        "share of any": below / some,
        "t of rectification": draws.rectify_t,
    }


def test_every_draw_has_its_distribution_and_is_independent_of_the_others() -> None:
    counts = RoleCounts(MANY, MANY, MANY, MANY)
    draws = draw_step(5, 7, counts, (1, 1, 1))
    uniform = uniforms(draws, counts)
    for name, values in uniform.items():
        assert float((values.sort().values - torch.linspace(0, 1, MANY)).abs().max()) < 0.04, name
    normal = [*by_role(draws.z, counts), draws.fake_z, draws.rectify_z]
    for values in normal:
        assert float(values.mean()) == pytest.approx(0, abs=0.08)
        assert float(values.std()) == pytest.approx(1, abs=0.06)
    together = torch.stack([*uniform.values(), *(values.flatten() for values in normal)])
    assert float((torch.corrcoef(together) - torch.eye(len(together))).abs().max()) < 5 / MANY**0.5


@pytest.mark.parametrize("other", [(6, 7), (5, 8)])
def test_another_seed_or_step_has_draws_of_its_own(other: tuple[int, int]) -> None:
    counts = RoleCounts(4, 4, 4, 4)
    ours, theirs = draw_step(5, 7, counts, (1, 1, 1)), draw_step(*other, counts, (1, 1, 1))
    for field in fields(StepDraws):
        assert not torch.equal(getattr(ours, field.name), getattr(theirs, field.name))


def test_no_two_draws_come_from_one_generator() -> None:
    """Not even where one of them is thrown away, as the t of one_step rows is, so that any layout keeps them apart."""
    of_one, of_any, of_fake = (
        draw_step(5, 7, counts, (1, 1, 1))
        for counts in (RoleCounts(8, 0, 0, 0), RoleCounts(0, 0, 8, 0), RoleCounts(0, 0, 0, 8))
    )
    uniform = [of_one.rectify_t, of_any.t, 1 - of_any.r / of_any.t]
    normal = [of_one.rectify_z, of_any.z, of_fake.fake_z]
    for draws in (uniform, normal):
        for ours, theirs in combinations(draws, 2):
            assert float((ours - theirs).abs().min()) > 1e-4
