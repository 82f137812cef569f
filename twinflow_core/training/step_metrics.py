"""What a step says of itself: the metrics of its parts, of one process or of several, as those of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from twinflow_core.training.ranks import Ranks


class RowMean(NamedTuple):
    """A mean over rows, in the form to which those of other rows can be added.

    Attributes:
        total: the sum over the rows.
        rows: how many there are.
    """

    total: float
    rows: float

    @property
    def value(self) -> float:
        """Not a number where there are no rows."""
        return self.total / self.rows if self.rows else math.nan


def mean_over(values: Tensor, weight: Tensor | None) -> RowMean:
    """The mean of [B] values over the rows of weight 1, of weights 0 and 1 [B]; over all for None."""
    values = values.detach().double()
    if weight is None:
        return RowMean(float(values.sum()), len(values))
    return RowMean(float((values * weight).sum()), float(weight.sum()))


@dataclass(frozen=True)
class StepMetrics:
    """The metrics of some rows of a step.

    Attributes:
        loss: their share of the step's.
        means: what is a mean over rows, each over its own.
    """

    loss: float
    means: dict[str, RowMean]

    @property
    def values(self) -> dict[str, float]:
        """As plain numbers; a mean without rows is not a number."""
        return {"loss": self.loss} | {name: mean.value for name, mean in self.means.items()}


def joined_metrics(parts: list[StepMetrics]) -> StepMetrics:
    """The metrics of all rows: losses of the parts add up, and every mean is over the rows of all."""
    means = {
        name: RowMean(
            *map(sum, zip(*(part.means[name] for part in parts if name in part.means), strict=True))
        )
        for name in dict.fromkeys(name for part in parts for name in part.means)
    }
    return StepMetrics(sum(part.loss for part in parts), means)


def metrics_of_all_ranks(here: StepMetrics, ranks: Ranks) -> StepMetrics:
    """The metrics of the whole step; all ranks ask together, have the same means, and hear the same."""
    totals = {f"total of {name}": mean.total for name, mean in here.means.items()}
    rows = {f"rows of {name}": mean.rows for name, mean in here.means.items()}
    return joined_metrics(
        [
            StepMetrics(
                told["loss"],
                {name: RowMean(told[f"total of {name}"], told[f"rows of {name}"]) for name in here.means},
            )
            for told in ranks.gather({"loss": here.loss} | totals | rows)
        ]
    )
