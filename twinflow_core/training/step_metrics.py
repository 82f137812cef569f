"""What a step says of itself: the metrics of its parts, of one process or of several, as those of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from twinflow_core.training.ranks import Ranks
from twinflow_core.training.roles import ROLES, Role
from twinflow_core.training.step import MicroBatch

# Whose rows a metric is a mean over, where not over all.
ROLES_OF: dict[str, tuple[Role, ...]] = {
    "loss_one_step": ("one_step",),
    "loss_near": ("near",),
    "loss_any": ("any",),
    "loss_fake": ("fake",),
    "rectify": ("one_step",),
    "velocity_difference": ("one_step",),
    "rectify_clamped": ("one_step",),
    "rcgm_clamped": ("one_step", "near", "any"),
}


@dataclass(frozen=True)
class StepMetrics:
    """The metrics of some rows of a step.

    Attributes:
        values: `loss` is their share of the step's; every other value is a mean over rows, and means nothing where
            it has none.
        rows: how many of them count, by role.
    """

    values: dict[str, float]
    rows: dict[Role, float]

    def rows_of(self, name: str) -> float:
        """How many rows a metric is a mean over."""
        return sum(self.rows[role] for role in ROLES_OF.get(name, ROLES))


def metrics_of(part: MicroBatch, values: dict[str, float]) -> StepMetrics:
    """The metrics that an objective gives of a part of a step, with its rows that count."""
    counts = {role: getattr(part.counts, role) for role in ROLES}
    if part.weight is None:
        return StepMetrics(values, counts)
    by_role = part.weight.split(list(counts.values()))
    return StepMetrics(values, {role: float(own.sum()) for role, own in zip(ROLES, by_role, strict=True)})


def joined_metrics(parts: list[StepMetrics]) -> StepMetrics:
    """The metrics of all rows: losses of the parts add up, other values are means, each part's by its rows.

    A value without rows is not a number, and does not make the others so.
    """
    values: dict[str, float] = {}
    for name in dict.fromkeys(name for part in parts for name in part.values):
        found = [(part.values[name], part.rows_of(name)) for part in parts if name in part.values]
        found = [(value, rows) for value, rows in found if rows > 0]
        total = sum(rows for _, rows in found)
        values[name] = sum(value * rows for value, rows in found) / total if found else math.nan
    values["loss"] = sum(part.values["loss"] for part in parts)
    return StepMetrics(values, {role: sum(part.rows[role] for part in parts) for role in ROLES})


def metrics_of_all_ranks(here: StepMetrics, ranks: Ranks) -> StepMetrics:
    """The metrics of the whole step; all ranks ask together and hear the same."""
    counts = {role: f"rows of {role}" for role in ROLES}
    told = ranks.gather(here.values | {counts[role]: float(rows) for role, rows in here.rows.items()})
    return joined_metrics(
        [
            StepMetrics(
                {name: each[name] for name in here.values}, {role: each[counts[role]] for role in ROLES}
            )
            for each in told
        ]
    )
