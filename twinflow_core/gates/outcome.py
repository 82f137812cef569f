"""What became of one rule, in numbers and words; kept in the decision for good."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Status = Literal["PASS", "FAIL", "WARN", "INCONCLUSIVE", "ERROR"]
Kind = Literal["min", "max", "margin"]


class SliceOutcome(BaseModel):
    """One slice of a rule over slices: the numbers of `RuleOutcome`, of this group of prompts alone."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    value: float
    low: float | None
    high: float | None
    candidate: float
    champion: float | None = None
    prompts: int
    images: int


class RuleOutcome(BaseModel):
    """One rule's outcome. A number that could not be computed is None, never NaN.

    Args:
        id, metric, severity: as the rule says.
        kind: the bound that decided: `min` or `max` of the metric itself, or a `margin` against the champion.
        value: what is held against `bound`: the metric, or for a margin candidate minus champion.
        bound: the least (`min`) or greatest (`max`) value allowed. For a margin the worst difference allowed:
            -margin where higher is better, +margin where lower is.
        low, high: one-sided bounds on `value`, each at `level`; None where no interval can be had.
        level: one-sided confidence of `low` and of `high`; after Holm's correction where the interval decides.
        better: which direction of the metric is good.
        candidate, champion: the metric of either model.
        decided_by: whether the point value, the interval or a policy decided; "none" for an ERROR.
        slice: the slice that decided, for a rule on the worst of several.
        slices: every slice's numbers, for a rule over slices.
        prompts, images: how many the interval rests on.
        look: 1 if the evaluation's own images decided, 2 if more were drawn for it.
        resamples, seed: how the interval was made.
        reason: why the status is what it is, one sentence for people.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    id: str
    metric: str
    severity: Literal["required", "warn"]
    kind: Kind
    status: Status
    reason: str
    decided_by: Literal["point", "interval", "policy", "none"]
    better: Literal["higher", "lower"] = "higher"
    value: float | None = None
    bound: float | None = None
    low: float | None = None
    high: float | None = None
    level: float | None = None
    candidate: float | None = None
    champion: float | None = None
    slice: str | None = None
    slices: tuple[SliceOutcome, ...] = ()
    prompts: int = 0
    images: int = 0
    look: Literal[1, 2] = 1
    resamples: int = 0
    seed: int | None = None

    @property
    def blocks(self) -> bool:
        """Whether this outcome keeps the candidate from being promoted without a person."""
        return self.severity == "required" and self.status != "PASS"
