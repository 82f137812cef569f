"""A step shared by ranks is the step: every row counts once, all make the same calls, and gradients add up."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.by_hand import AVERAGED, ONLINE, Formula
from tests.training.test_micro_batches import a_step
from tests.training.test_twinflow_objective import OPTIONS
from twinflow_core.training.micro_batches import micro_batches
from twinflow_core.training.objectives import TwinFlow
from twinflow_core.training.rank_rows import share_of
from twinflow_core.training.ranks import Ranks
from twinflow_core.training.roles import ROLES, RoleCounts, role_counts
from twinflow_core.training.step import Batch, MicroBatch, Networks
from twinflow_core.training.step_metrics import StepMetrics, joined_metrics

COUNTS = st.builds(RoleCounts, *[st.integers(0, 9)] * 4).filter(lambda counts: counts.total > 0)


@given(COUNTS, st.integers(1, 6))
def test_every_row_counts_on_one_rank_and_all_ranks_look_the_same(whole: RoleCounts, ranks: int) -> None:
    shares = [share_of(whole, Ranks(rank, ranks)) for rank in range(ranks)]
    own = torch.cat([share.rows[share.weight > 0] for share in shares])
    assert sorted(own.tolist()) == list(range(whole.total))
    assert len({share.counts for share in shares}) == 1
    for role in ROLES:
        there, held = getattr(whole, role), getattr(shares[0].counts, role)
        assert (held > 0) == (there > 0)
        assert held * ranks < there + ranks
    for share in shares:
        roles = torch.bucketize(share.rows, bounds(whole), right=True)
        assert (
            roles.tolist()
            == torch.bucketize(torch.arange(share.counts.total), bounds(share.counts), right=True).tolist()
        )


@given(st.integers(2, 13), st.integers(2, 4), st.integers(1, 3), st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_gradient_and_metrics_of_the_ranks_are_those_of_the_step(
    rows: int, ranks: int, parts: int, index: int
) -> None:
    counts = role_counts(OPTIONS.shares, index, rows)
    batch, draws = a_step(rows, index)
    gradient, whole = gradient_of(micro_batches(batch, draws, counts, 1))
    sums, said = 0.0, []
    for rank in range(ranks):
        share = share_of(counts, Ranks(rank, ranks))
        mine = Batch(batch.x[share.rows], batch.conditioning[share.rows], batch.empty)
        pieces = micro_batches(mine, draws.of_rows(share.rows), share.counts, parts, counts, share.weight)
        part, metrics = gradient_of(pieces)
        sums += part
        said.append(metrics)
    assert sums == pytest.approx(gradient, rel=1e-10, abs=1e-12)
    joined = joined_metrics(said)
    assert joined.values == pytest.approx(whole.values, rel=1e-10, nan_ok=True)
    assert {n: mean.rows for n, mean in joined.means.items()} == {n: m.rows for n, m in whole.means.items()}


def gradient_of(pieces: list[MicroBatch]) -> tuple[float, StepMetrics]:
    a = torch.tensor(ONLINE[0], dtype=torch.float64, requires_grad=True)
    online = Formula(ONLINE)
    online.weights = (a, *ONLINE[1:])  # type: ignore[assignment]
    done = [TwinFlow(OPTIONS).loss(Networks(online, Formula(AVERAGED), None), piece, 0) for piece in pieces]
    for each in done:
        each.loss.backward()
    return float(a.grad), joined_metrics([each.metrics for each in done])  # type: ignore[arg-type]


def bounds(counts: RoleCounts) -> torch.Tensor:
    return torch.tensor([getattr(counts, role) for role in ROLES]).cumsum(0)
