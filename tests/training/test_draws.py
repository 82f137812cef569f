"""Draws depend on (seed, step, purpose) alone; data order is a permutation an epoch."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from twinflow_core.training.draws import batch_rows, normal, uniform


def test_the_same_arguments_give_the_same_draws_and_others_do_not() -> None:
    assert torch.equal(normal(1, 2, "z", (3,)), normal(1, 2, "z", (3,)))
    others = [normal(2, 2, "z", (3,)), normal(1, 3, "z", (3,)), normal(1, 2, "r", (3,))]
    assert all(not torch.equal(normal(1, 2, "z", (3,)), other) for other in others)
    assert 0.45 < float(uniform(0, 0, "t", 10_000).mean()) < 0.55


@given(st.integers(1, 40), st.integers(1, 70))
def test_every_epoch_sees_every_row_once(dataset_rows: int, batch_size: int) -> None:
    epochs = 3
    steps = -(-epochs * dataset_rows // batch_size)
    rows = torch.cat([batch_rows(5, step, batch_size, dataset_rows) for step in range(steps)])
    for epoch in rows[: epochs * dataset_rows].view(epochs, dataset_rows):
        assert torch.equal(epoch.sort().values, torch.arange(dataset_rows))
