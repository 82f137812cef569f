"""A step in parts is the step: every row once, and the gradient of the whole."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.by_hand import AVERAGED, ONLINE, Formula
from tests.training.test_twinflow_objective import OPTIONS, SHAPE, make_batch
from twinflow_core.training.micro_batches import micro_batches
from twinflow_core.training.objectives import TwinFlow
from twinflow_core.training.roles import role_counts
from twinflow_core.training.step import Batch, Networks
from twinflow_core.training.step_metrics import joined_metrics, metrics_of
from twinflow_core.training.twinflow_draws import StepDraws, draw_step

# Of a root mean square the parts do not say the whole.
MEANS = ("loss", "loss_one_step", "loss_near", "loss_any", "loss_fake", "rectify", "rectify_clamped")


def a_step(rows: int, index: int) -> tuple[Batch, StepDraws]:
    counts = role_counts(OPTIONS.shares, index, rows)
    whole = make_batch(rows)
    conditioning = type(whole.conditioning)(
        whole.conditioning.prompt_embeds, whole.conditioning.pooled[:, :1].double()
    )
    empty = type(whole.empty)(whole.empty.prompt_embeds, whole.empty.pooled[:, :1].double())
    drawn = draw_step(0, index, counts, SHAPE)
    draws = StepDraws(**{name: value.double() for name, value in vars(drawn).items()})
    return Batch(whole.x.double(), conditioning, empty), draws


@given(st.integers(1, 13), st.integers(1, 15), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_the_gradients_of_the_parts_add_up_to_that_of_the_whole(rows: int, parts: int, index: int) -> None:
    counts = role_counts(OPTIONS.shares, index, rows)
    batch, draws = a_step(rows, index)
    objective = TwinFlow(OPTIONS)
    gradients, losses = [], []
    for number in (1, parts):
        a = torch.tensor(ONLINE[0], dtype=torch.float64, requires_grad=True)
        online = Formula(ONLINE)
        online.weights = (a, *ONLINE[1:])  # type: ignore[assignment]
        pieces = micro_batches(batch, draws, counts, number)
        assert sum(piece.counts.total for piece in pieces) == rows
        assert all(piece.counts.total > 0 for piece in pieces)
        done = [objective.loss(Networks(online, Formula(AVERAGED), None), piece, 0) for piece in pieces]
        for each in done:
            each.loss.backward()
        gradients.append(float(a.grad))  # type: ignore[arg-type]
        joined = joined_metrics(
            [metrics_of(piece, each.metrics) for piece, each in zip(pieces, done, strict=True)]
        )
        losses.append([joined.values[name] for name in MEANS if name in joined.values])
    assert gradients[1] == pytest.approx(gradients[0], rel=1e-10, abs=1e-12)
    assert losses[1] == pytest.approx(losses[0], rel=1e-10, nan_ok=True)
