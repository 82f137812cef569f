"""The plain step that ours is timed against: the same numbers at its own, higher count."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.objectives.naive_step import naive_loss
from tests.training.by_hand import AVERAGED, ONLINE, Formula
from tests.training.test_micro_batches import a_step
from tests.training.test_twinflow_objective import OPTIONS, SHAPE, counted_networks, make_batch
from twinflow_core.training.roles import role_counts
from twinflow_core.training.step import MicroBatch, Networks
from twinflow_core.training.twinflow_draws import draw_step
from twinflow_core.training.twinflow_objective import twinflow_loss


def test_its_own_counter_reads_the_authors_cost() -> None:
    networks, online, averaged = counted_networks()
    counts = role_counts(OPTIONS.shares, 0, 16)
    naive_loss(networks, make_batch(16), draw_step(0, 0, counts, SHAPE), counts, OPTIONS)
    assert (3 * online.rows_with_gradient + online.rows + averaged.rows) / 16 == 7.75


@given(st.integers(1, 13), st.integers(0, 9), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_loss_and_gradient_are_ours_to_rounding(rows: int, index: int, order: int) -> None:
    options = OPTIONS.model_copy(update={"order": order})
    counts = role_counts(options.shares, index, rows)
    batch, draws = a_step(rows, index)
    found = []
    for ours in (True, False):
        a = torch.tensor(ONLINE[0], dtype=torch.float64, requires_grad=True)
        online = Formula(ONLINE)
        online.weights = (a, *ONLINE[1:])  # type: ignore[assignment]
        networks = Networks(online, Formula(AVERAGED), None)
        if ours:
            loss = twinflow_loss(networks, MicroBatch(batch, draws, counts, counts), options).loss
        else:
            loss = naive_loss(networks, batch, draws, counts, options)
        loss.backward()
        found.append((float(loss.detach()), float(a.grad)))  # type: ignore[arg-type]
    assert found[0] == pytest.approx(found[1], rel=1e-10, abs=1e-10)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fakes", "shared"),
        ("near_target", "velocity"),
        ("one_step_target", "rectified"),
        ("rectify_target", "normalised"),
        ("real_velocity", "base"),
        ("fake_velocity", "own"),
        ("objective", "rcgm"),
    ],
)
def test_options_that_it_does_not_compute_are_refused(name: str, value: str) -> None:
    networks, _, _ = counted_networks()
    counts = role_counts(OPTIONS.shares, 0, 4)
    options = OPTIONS.model_copy(update={name: value})
    with pytest.raises(ValueError, match=f"another {name}"):
        naive_loss(networks, make_batch(4), draw_step(0, 0, counts, SHAPE), counts, options)


@pytest.mark.parametrize("name", ["base", "fake"])
def test_networks_that_it_does_not_ask_are_refused(name: str) -> None:
    networks, _, averaged = counted_networks()
    counts = role_counts(OPTIONS.shares, 0, 4)
    with pytest.raises(ValueError, match=f"another {name}"):
        naive_loss(
            replace(networks, **{name: averaged}),
            make_batch(4),
            draw_step(0, 0, counts, SHAPE),
            counts,
            OPTIONS,
        )
