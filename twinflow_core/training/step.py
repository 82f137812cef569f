"""What one step of an objective is given and gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.training.roles import RoleCounts
from twinflow_core.training.step_metrics import RowMean, StepMetrics, mean_over
from twinflow_core.training.twinflow_draws import StepDraws

# (x_t, t, r, conditioning) -> velocity; r is None for a network that has no target time
Network = Callable[[Tensor, Tensor, Tensor | None, Conditioning], Tensor]


@dataclass(frozen=True)
class Networks:
    """The networks of a step.

    Attributes:
        online: the weights in training.
        averaged: their exponential moving average, which gives targets without gradient.
        base: the frozen base model where the options ask for it, else None.
        fake: a network for the velocity of the fakes, where the online one at negative times does not give it.
    """

    online: Network
    averaged: Network
    base: Network | None
    fake: Network | None = None


@dataclass(frozen=True)
class Batch:
    """Latents [B, C, H, W], the conditioning of their captions, and that of the empty caption (one row)."""

    x: Tensor
    conditioning: Conditioning
    empty: Conditioning


@dataclass(frozen=True)
class MicroBatch:
    """The rows of a step that are computed at once.

    Attributes:
        batch: rows laid out as `counts`.
        draws: the randomness of these rows.
        counts: rows by role.
        whole: rows by role of the whole step, which losses are means over, so that the gradients of its
            micro-batches add up to the step's. Equals `counts` where the step is one micro-batch.
        weight: [B], 0 for rows that only fill the share of a rank (see `rank_rows`); None where all count.
    """

    batch: Batch
    draws: StepDraws
    counts: RoleCounts
    whole: RoleCounts
    weight: Tensor | None = None

    def weighted(self, row_loss: Tensor, rows: slice = slice(None)) -> Tensor:
        """The losses of these rows without those that do not count."""
        return row_loss if self.weight is None else row_loss * self.weight[rows]

    def mean(self, values: Tensor, rows: slice | Tensor) -> RowMean:
        """The mean of these rows' values over those of them that count; rows by a slice or by their numbers."""
        return mean_over(values, None if self.weight is None else self.weight[rows])


@dataclass(frozen=True)
class StepLoss:
    """The loss with its gradient, and what is worth plotting, without one."""

    loss: Tensor
    means: dict[str, RowMean]

    @property
    def metrics(self) -> StepMetrics:
        """All as numbers."""
        return StepMetrics(float(self.loss.detach()), self.means)
