"""A step in parts is the step: every row once, and the gradient of the whole."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.by_hand import AVERAGED, ONLINE, Formula
from tests.training.test_twinflow_objective import OPTIONS, SHAPE, make_batch
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.training.micro_batches import balanced_pieces, micro_batches
from twinflow_core.training.objectives import TwinFlow
from twinflow_core.training.roles import ROLES, Role, RoleCounts, role_counts
from twinflow_core.training.step import Batch, Networks
from twinflow_core.training.step_metrics import joined_metrics
from twinflow_core.training.twinflow_draws import StepDraws, draw_step

# Rows of one role are recursive, or all of the positive branch.
OF_EITHER = (OPTIONS, OPTIONS.model_copy(update={"one_step_target": "rectified", "near_target": "velocity"}))


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


@given(st.sampled_from(OF_EITHER), st.integers(1, 13), st.integers(1, 15), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_gradient_and_metrics_of_the_parts_are_those_of_the_whole(
    options: FinetuneParams, rows: int, parts: int, index: int
) -> None:
    counts = role_counts(OPTIONS.shares, index, rows)
    batch, draws = a_step(rows, index)
    objective = TwinFlow(options)
    gradients, metrics = [], []
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
        metrics.append(joined_metrics([each.metrics for each in done]).values)
    assert gradients[1] == pytest.approx(gradients[0], rel=1e-10, abs=1e-12)
    assert metrics[1] == pytest.approx(metrics[0], rel=1e-10, nan_ok=True)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 9))
def test_parts_are_alike_in_size_and_roles(rows: int, parts: int, index: int) -> None:
    counts = role_counts(OPTIONS.shares, index, rows)
    held = [piece.counts for piece in micro_batches(*a_step(rows, index), counts, parts)]
    for role in (*ROLES, "total"):
        each = [getattr(count, role) for count in held]
        assert max(each) - min(each) <= 1
        assert sum(each) == getattr(counts, role)


COSTS = st.fixed_dictionaries({role: st.integers(1, 9) for role in ROLES})


@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 9), COSTS)
def test_balanced_pieces_are_consecutive_rows_of_nearly_one_cost(
    rows: int, wanted: int, index: int, costs: dict[Role, int]
) -> None:
    counts = role_counts(OPTIONS.shares, index, rows)
    (part,) = micro_batches(*a_step(rows, index), counts, 1)
    pieces = balanced_pieces(part, costs, wanted)
    assert torch.equal(torch.cat([piece.batch.x for piece in pieces]), part.batch.x)
    assert torch.equal(torch.cat([piece.draws.t for piece in pieces]), part.draws.t)
    assert 1 <= len(pieces) <= wanted
    assert all(piece.counts.total > 0 and piece.whole == counts for piece in pieces)

    def cost(held: RoleCounts) -> int:
        return sum(costs[role] * getattr(held, role) for role in ROLES)

    # A row goes where its middle lies: half a row more at either end, and no more.
    assert all(cost(piece.counts) <= cost(counts) / wanted + max(costs.values()) for piece in pieces)
