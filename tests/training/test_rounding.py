"""Rounding by chance: to a neighbour, unbiased, and blind to nothing that is small."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twinflow_core.training.draws import generator
from twinflow_core.training.rounding import stochastic_bfloat16

FLOATS = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)


@given(FLOATS, st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_a_value_goes_to_one_of_its_two_neighbours(value: float, seed: int) -> None:
    x = torch.full((64,), value)
    rounded = stochastic_bfloat16(x, torch.Generator().manual_seed(seed)).float()
    below, above = neighbours(value)
    assert set(rounded.tolist()) <= {below, above}


def test_what_bfloat16_holds_stays() -> None:
    held = torch.tensor([0.0, -0.0, 1.0, -1.5, 2.0**-126, 3.0e38, float("inf"), float("-inf")])
    x = held.to(torch.bfloat16).float().repeat(100)
    assert stochastic_bfloat16(x, torch.Generator().manual_seed(0)).float().equal(x)


@given(st.floats(2.0**-10, 2.0**10, width=32), st.booleans(), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_the_mean_of_many_roundings_is_the_value(size: float, negative: bool, seed: int) -> None:
    value = float(torch.tensor(-size if negative else size))
    rows = 40_000
    rounded = stochastic_bfloat16(torch.full((rows,), value), torch.Generator().manual_seed(seed))
    below, above = neighbours(value)
    # A coin of two sides `gap` apart: no more than half a gap of standard deviation a throw. Six of them.
    allowed = 6 * 0.5 * (above - below) / rows**0.5
    assert abs(float(rounded.double().mean()) - value) <= allowed


@given(st.integers(0, 8), st.integers(0, 8), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_rows_are_rounded_alike_alone_and_among_others(first: int, last: int, seed: int) -> None:
    values = torch.rand(8, 3, 5, generator=torch.Generator().manual_seed(1))
    rows = slice(min(first, last), max(first, last))
    whole = stochastic_bfloat16(values, torch.Generator().manual_seed(seed))
    alone = stochastic_bfloat16(values[rows], torch.Generator().manual_seed(seed), values.shape, rows.start)
    assert alone.equal(whole[rows])


def test_small_updates_add_up_where_the_nearest_loses_each() -> None:
    updates, update = 400, 2.0**-13
    by_chance = nearest = torch.ones(4000, dtype=torch.bfloat16)
    for step in range(updates):
        by_chance = stochastic_bfloat16(by_chance.float() + update, generator(0, step, "test"))
        nearest = (nearest.float() + update).to(torch.bfloat16)
    assert nearest.eq(1).all()
    assert abs(float(by_chance.double().mean()) - (1 + updates * update)) < 0.002


def neighbours(value: float) -> tuple[float, float]:
    """The largest bfloat16 not above and the smallest not below."""
    x = torch.tensor(value)
    toward_zero = float((x.view(torch.int32) & -65536).view(torch.float32))
    if toward_zero == value:
        return value, value
    away = float(((x.view(torch.int32) & -65536) + 65536).view(torch.float32))
    return min(toward_zero, away), max(toward_zero, away)
